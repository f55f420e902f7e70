#include "runtime/generate/generator.h"

#include <algorithm>
#include <chrono>

namespace sprun {

namespace {

constexpr int64_t kFewestTokens = 16;  // of a cache
// Most of a mask [tokens, context] that a plan may have: planning looks at its elements, of up to 8 bytes.
constexpr int64_t kMaskElements = int64_t{1} << 23;

using Clock = std::chrono::steady_clock;

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// A session keeps no past between calls, however they end.
class ResetAtEnd {
 public:
  explicit ResetAtEnd(TokenDecoder& decoder) : decoder_(decoder) {}
  ~ResetAtEnd() {
    decoder_.reset();
    decoder_.record(nullptr);
  }
  ResetAtEnd(const ResetAtEnd&) = delete;
  ResetAtEnd& operator=(const ResetAtEnd&) = delete;

 private:
  TokenDecoder& decoder_;
};

// Leads the step times of a generation to its two phases; does nothing without a profile.
class Profiler {
 public:
  Profiler(GenerateProfile* profile, const Model::Impl& model, TokenDecoder& decoder) : profile_(profile), model_(model) {
    if (profile_ == nullptr) return;
    *profile_ = {};
    decoder.record(&times_);
  }
  ~Profiler() { end_phase(); }
  Profiler(const Profiler&) = delete;
  Profiler& operator=(const Profiler&) = delete;

  // Ends the phase before.
  void begin(GenerateProfile::Phase GenerateProfile::* phase) {
    if (profile_ == nullptr) return;
    end_phase();
    phase_ = &(profile_->*phase);
    times_.begin(phase_);
  }

 private:
  void end_phase() {
    if (phase_ != nullptr) phase_->ffn = density_between(before_, model_.ffn_density());
    if (profile_ != nullptr) before_ = model_.ffn_density();
  }

  GenerateProfile* profile_;
  const Model::Impl& model_;
  GenerateProfile::Phase* phase_ = nullptr;
  StepTimes times_;
  std::vector<FfnDensity> before_;
};

RunOptions run_options(const GenerateOptions& options) { return {.stop = options.stop, .deadline = options.deadline}; }

}  // namespace

std::string_view kv_type_name(KvType type) {
  switch (type) {
    case KvType::kF32: return "f32";
    case KvType::kBf16: return "bf16";
    case KvType::kInt8: return "int8";
  }
  return "unknown";
}

Result<KvType> parse_kv_type(std::string_view name) {
  for (const KvType type : {KvType::kF32, KvType::kBf16, KvType::kInt8}) {
    if (name == kv_type_name(type)) return type;
  }
  return Status(Code::kUsage, "unknown type of the key and value cache '" + std::string(name) +
                                  "', expected f32, bf16 or int8");
}

Result<std::unique_ptr<Generator>> Generator::create(const Model& model, const DecoderEnv& env) {
  SPRUN_ASSIGN(DecoderIo io, DecoderIo::describe(model));
  return std::unique_ptr<Generator>(new Generator(std::move(io), env));
}

Status Generator::check(std::span<const int64_t> prompt, const GenerateOptions& options) const {
  if (prompt.empty()) return {Code::kUsage, "the prompt has no token, expected at least one"};
  if (options.max_new_tokens < 1) {
    return {Code::kUsage, "max_new_tokens is " + std::to_string(options.max_new_tokens) + ", expected at least 1"};
  }
  SPRUN_TRY(validate(options.sampling));
  if (options.prefill_chunk < 1) {
    return {Code::kUsage, "prefill_chunk is " + std::to_string(options.prefill_chunk) + ", expected at least 1"};
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] >= 0 && (io_.vocabulary < 0 || prompt[i] < io_.vocabulary)) continue;
    return {Code::kBadInput, "token " + std::to_string(i) + " of the prompt is " + std::to_string(prompt[i]) +
                                 (io_.vocabulary < 0 ? ", expected 0 or more"
                                                     : ", expected 0 to " + std::to_string(io_.vocabulary - 1))};
  }
  return {};
}

Status Generator::open(int64_t prompt_tokens, const GenerateOptions& options) {
  const int64_t capacity = prompt_tokens + options.max_new_tokens;
  const bool fits = decoder_ && decoder_->capacity() >= capacity && kv_type_ == options.kv_type;
  const Status status = fits ? Status() : open_cached(capacity, options.kv_type);
  const Status ready = status.ok() ? prepare_prefill(prompt_tokens, options) : status;
  if (ready.code() != Code::kUsage) return ready;
  why_not_cached_ = ready.message();
  decoder_ = make_replay_decoder(io_, env_);
  return {};
}

Status Generator::open_cached(int64_t capacity, KvType kv_type) {
  kv_type_ = kv_type;
  // Two positions have to differ for the analysis of the graph to tell what depends on them.
  auto made = make_cached_decoder(io_, env_, std::max(capacity, kFewestTokens), kv_type);
  if (!made.ok() && made.status().code() == Code::kBadInput && capacity < kFewestTokens) {
    return {Code::kUsage, "the model takes too few tokens for a cache"};
  }
  SPRUN_ASSIGN(decoder_, std::move(made));
  why_not_cached_.clear();
  return {};
}

int64_t Generator::chunk_size(const GenerateOptions& options) const {
  if (io_.fixed_tokens > 0) return io_.fixed_tokens;
  if (!why_not_cached_.empty()) return options.prefill_chunk;
  return std::clamp<int64_t>(kMaskElements / decoder_->capacity(), 1, options.prefill_chunk);
}

Status Generator::prepare_prefill(int64_t tokens, const GenerateOptions& options) {
  const int64_t chunk = chunk_size(options);
  if (tokens >= chunk) SPRUN_TRY(decoder_->prepare(chunk));
  const int64_t rest = tokens % chunk;
  return rest > 0 ? decoder_->prepare(rest) : Status();
}

Result<ConstTensorView> Generator::prefill(std::span<const int64_t> prompt, const GenerateOptions& options) {
  ConstTensorView logits;
  const auto chunk = static_cast<size_t>(chunk_size(options));
  for (size_t at = 0; at < prompt.size(); at += chunk) {
    SPRUN_ASSIGN(logits, decoder_->append(prompt.subspan(at, std::min(chunk, prompt.size() - at)), run_options(options)));
  }
  return logits;
}

Status Generator::decode(ConstTensorView logits, std::span<const int64_t> prompt, const GenerateOptions& options,
                         const TokenSink& sink, GenerateResult& result) {
  SPRUN_ASSIGN(Sampler sampler, Sampler::create(options.sampling));
  std::vector<int64_t> text(prompt.begin(), prompt.end());
  for (;;) {
    const std::span<const float> row(logits.as<float>(), static_cast<size_t>(logits.num_elements()));
    const auto picked = sampler.sample(row, text);
    if (!picked.ok()) return picked.status().with_context("token " + std::to_string(result.tokens.size()));
    const int64_t token = *picked;
    text.push_back(token);
    result.tokens.push_back(token);
    if (sink && !sink(token)) {
      result.finish = FinishReason::kSink;
      return {};
    }
    if (std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) != options.stop_tokens.end()) {
      result.finish = FinishReason::kStopToken;
      return {};
    }
    if (static_cast<int64_t>(result.tokens.size()) == options.max_new_tokens) return {};
    SPRUN_ASSIGN(logits, decoder_->append(std::span(&token, 1), run_options(options)));
  }
}

Result<std::string> Generator::explain(const GenerateOptions& options) {
  const int64_t token = 0;
  SPRUN_TRY(check(std::span(&token, 1), options));
  SPRUN_TRY(open(1, options));
  const ResetAtEnd reset(*decoder_);
  if (!why_not_cached_.empty()) SPRUN_TRY(decoder_->append(std::span(&token, 1), run_options(options)).status());
  const std::string kept = why_not_cached_.empty() ? "kept in place: one plan for every position"
                                                   : "planned anew for each length: " + why_not_cached_;
  return "keys and values: " + kept + "\n" + decoder_->explain();
}

Result<GenerateResult> Generator::run(std::span<const int64_t> prompt, const GenerateOptions& options,
                                      const TokenSink& sink, GenerateProfile* profile) {
  SPRUN_TRY(check(prompt, options));
  const auto begin = Clock::now();
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  SPRUN_TRY(open(prompt_tokens, options));
  const ResetAtEnd reset(*decoder_);
  Profiler profiler(profile, *env_.model, *decoder_);
  profiler.begin(&GenerateProfile::prefill);
  const auto start = Clock::now();
  GenerateResult result;
  SPRUN_ASSIGN(const ConstTensorView logits, prefill(prompt, options));
  const auto first = Clock::now();
  if (profile) profile->prefill.tokens = prompt_tokens;
  profiler.begin(&GenerateProfile::decode);
  SPRUN_TRY(decode(logits, prompt, options, sink, result));
  if (profile) profile->decode.tokens = std::max<int64_t>(static_cast<int64_t>(result.tokens.size()) - 1, 0);  // the first is of the prefill
  result.prompt_tokens = prompt_tokens;
  result.setup_ms = milliseconds(begin, start);
  result.prefill_ms = milliseconds(start, first);
  result.decode_ms = milliseconds(first, Clock::now());
  result.kv_bytes = decoder_->kv_bytes();
  result.kv_committed_bytes = decoder_->kv_committed_bytes();
  result.why_not = why_not_cached_;
  result.cached = why_not_cached_.empty();
  return result;
}

}  // namespace sprun
