// sprun generate: continues a text or a token sequence with a decoder model.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sprun/tokenizer.h"
#include "tools/sprun/command.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"
#include "tools/sprun/generate_profile.h"
#include "tools/sprun/io/npy.h"

namespace sprun::tools {
namespace {

using Json = nlohmann::ordered_json;

struct GenerateArgs {
  ModelArgs model;
  std::vector<int64_t> tokens, stop_tokens;
  std::string prompt, tokens_file, tokenizer, kv = "f32", json;
  SamplingOptions sampling;
  int64_t max_new_tokens = 128, prefill_chunk = 512;
  double deadline_ms = 0;
  int threads = 0;
  bool explain = false, ignore_end = false, profile = false;
  ProfileStyle profile_style;
};

Result<std::vector<int64_t>> read_token_file(const std::string& path) {
  SPRUN_ASSIGN(const Tensor tensor, read_npy(path));
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    if (tensor.dtype() == DType::kS64) {
      tokens.push_back(tensor.as<int64_t>()[i]);
    } else if (tensor.dtype() == DType::kS32) {
      tokens.push_back(tensor.as<int32_t>()[i]);
    } else {
      return Status(Code::kBadInput, fmt::format("{}: tokens are {}, expected int64 or int32", path,
                                                 dtype_name(tensor.dtype())));
    }
  }
  return tokens;
}

// The tokenizer of --tokenizer, or the one beside the model; none if only tokens are asked for and none is there.
Result<std::optional<Tokenizer>> open_tokenizer(const GenerateArgs& args) {
  if (!args.tokenizer.empty()) {
    SPRUN_ASSIGN(Tokenizer tokenizer, Tokenizer::load(args.tokenizer));
    return std::optional(std::move(tokenizer));
  }
  const std::filesystem::path folder = std::filesystem::path(args.model.path).parent_path();
  auto tokenizer = Tokenizer::load(folder.empty() ? "." : folder.string());
  if (tokenizer.ok()) return std::optional(std::move(*tokenizer));
  if (args.prompt.empty()) return std::optional<Tokenizer>();
  return tokenizer.status().with_context("--prompt needs a tokenizer beside the model, or --tokenizer");
}

Result<std::vector<int64_t>> read_prompt(const GenerateArgs& args, const std::optional<Tokenizer>& tokenizer) {
  const int given = int{!args.prompt.empty()} + int{!args.tokens.empty()} + int{!args.tokens_file.empty()};
  if (given != 1) return Status(Code::kUsage, "expected one of --prompt, --tokens and --tokens-file");
  if (!args.tokens.empty()) return args.tokens;
  if (!args.tokens_file.empty()) return read_token_file(args.tokens_file);
  return tokenizer->encode(args.prompt);
}

double tokens_per_second(double tokens, double ms) { return ms > 0 ? 1000.0 * tokens / ms : 0; }

std::string_view finish_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kLength: return "length";
    case FinishReason::kStopToken: return "stop token";
    case FinishReason::kSink: return "stopped";
  }
  return "unknown";
}

double prefill_rate(const GenerateResult& result) {
  return tokens_per_second(static_cast<double>(result.prompt_tokens), result.prefill_ms);
}

double decode_rate(const GenerateResult& result) {
  return tokens_per_second(static_cast<double>(result.tokens.size()) - 1, result.decode_ms);
}

// Mean over the sparse feed-forward layers; negative without any.
double mean_density(const std::vector<FfnDensity>& layers) {
  double sum = 0;
  int counted = 0;
  for (const FfnDensity& layer : layers) {
    if (layer.measured < 0) continue;
    sum += layer.measured;
    ++counted;
  }
  return counted > 0 ? sum / counted : -1;
}

std::string summary(const GenerateArgs& args, const GenerateResult& result, int threads) {
  std::string text = fmt::format(
      "prefill  {} tokens  {:.1f} tokens/s  {:.2f} ms\n"
      "decode   {} tokens  {:.1f} tokens/s  {:.2f} ms  (end: {})\n"
      "memory   {:.1f} KiB of keys and values ({}) in use, {:.1f} KiB committed, {}\n"
      "setup    {:.1f} ms  {} thread{}, {}, {}\n",
      result.prompt_tokens, prefill_rate(result), result.prefill_ms, result.tokens.size(), decode_rate(result),
      result.decode_ms, finish_name(result.finish), static_cast<double>(result.kv_bytes) / 1024.0, args.kv,
      static_cast<double>(result.kv_committed_bytes) / 1024.0,
      result.cached ? "kept in place" : "planned anew for each length", result.setup_ms, threads,
      threads == 1 ? "" : "s", args.model.precision, isa_in_use());
  if (!result.cached) text += "note     " + result.why_not + "\n";
  return text;
}

std::string density_line(const std::vector<FfnDensity>& layers) {
  const double density = mean_density(layers);
  if (density < 0) return "";
  return fmt::format("density  {:.1f} % of the neurons active in {} sparse layers ({})\n", 100 * density, layers.size(),
                     layers[0].pattern);
}

Json to_json(const GenerateArgs& args, const GenerateResult& result, int threads) {
  return {{"model", args.model.path},
          {"precision", args.model.precision},
          {"isa", isa_in_use()},
          {"threads", threads},
          {"prompt_tokens", result.prompt_tokens},
          {"tokens", result.tokens},
          {"finish", finish_name(result.finish)},
          {"prefill_ms", result.prefill_ms},
          {"prefill_tokens_per_s", prefill_rate(result)},
          {"decode_ms", result.decode_ms},
          {"decode_tokens_per_s", decode_rate(result)},
          {"setup_ms", result.setup_ms},
          {"kv_type", args.kv},
          {"kv_bytes", result.kv_bytes},
          {"kv_committed_bytes", result.kv_committed_bytes},
          {"cached", result.cached},
          {"why_not_cached", result.why_not}};
}

// Writes tokens as they come: as text where there is a tokenizer, else as numbers.
class TokenPrinter {
 public:
  TokenPrinter(const GenerateArgs& args, const std::optional<Tokenizer>& tokenizer, std::span<const int64_t> prompt)
      : on_(args.json != "-") {
    if (tokenizer) stream_.emplace(*tokenizer, prompt);
  }

  bool operator()(int64_t token) {
    std::string text = fmt::format("{} ", token);
    if (stream_) {
      auto part = stream_->push(token);
      text = part.ok() ? *part : "";
      if (!part.ok()) status_ = part.status();
    }
    text_ += text;
    if (on_ && status_.ok() && !text.empty()) status_ = print(text);
    return status_.ok();
  }

  Status finish() {
    const std::string rest = stream_ ? stream_->flush() : "";
    text_ += rest;
    if (on_ && status_.ok()) status_ = print(rest + "\n");
    return status_;
  }

  const std::string& text() const { return text_; }

 private:
  bool on_;
  std::optional<StreamDecoder> stream_;
  std::string text_;
  Status status_;
};

Result<GenerateOptions> make_options(const GenerateArgs& args, const std::optional<Tokenizer>& tokenizer) {
  GenerateOptions options;
  options.max_new_tokens = args.max_new_tokens;
  options.sampling = args.sampling;
  options.stop_tokens = args.stop_tokens;
  if (tokenizer && !args.ignore_end && !args.prompt.empty()) {
    options.stop_tokens.insert(options.stop_tokens.end(), tokenizer->eos_ids().begin(), tokenizer->eos_ids().end());
  }
  options.prefill_chunk = args.prefill_chunk;
  options.stop = stop_token();
  SPRUN_ASSIGN(options.kv_type, parse_kv_type(args.kv));
  SPRUN_TRY(validate(options.sampling));
  return options;
}

Status generate(const GenerateArgs& args) {
  SPRUN_ASSIGN(const std::optional<Tokenizer> tokenizer, open_tokenizer(args));
  std::vector<int64_t> prompt;
  if (!args.explain) {
    SPRUN_ASSIGN(prompt, read_prompt(args, tokenizer));
  }
  SPRUN_ASSIGN(GenerateOptions options, make_options(args, tokenizer));
  SPRUN_ASSIGN(const Loaded loaded, load_model(args.model));
  SPRUN_ASSIGN(Session session, Session::create(loaded.model, {.num_threads = args.threads}));
  if (args.explain) {
    SPRUN_ASSIGN(const std::string text, session.explain_generate(options));
    return print(text);
  }
  if (args.deadline_ms > 0) {
    options.deadline = std::chrono::steady_clock::now() +
                       std::chrono::microseconds(static_cast<int64_t>(1000 * args.deadline_ms));
  }
  TokenPrinter printer(args, args.prompt.empty() && args.tokenizer.empty() ? std::nullopt : tokenizer, prompt);
  session.set_profiling(args.profile);
  const auto result = session.generate(prompt, options, std::ref(printer));
  SPRUN_TRY(printer.finish());
  SPRUN_TRY(result.status());
  const std::vector<FfnDensity> layers = session.ffn_density();
  const PeakRates peak = args.profile ? measure_peak(session.num_threads()) : PeakRates{};
  if (args.json != "-") {
    message(summary(args, *result, session.num_threads()) + density_line(layers));
    if (args.profile) message(to_text(session.generate_profile(), peak, args.profile_style));
  }
  if (args.json.empty()) return {};
  Json json = to_json(args, *result, session.num_threads());
  if (tokenizer) json["text"] = printer.text();
  if (const double density = mean_density(layers); density >= 0) json["ffn_density"] = density;
  if (args.profile) json["profile"] = to_json(session.generate_profile(), peak, args.profile_style);
  return write_json(args.json, json);
}

}  // namespace

Action setup_generate(CLI::App& app) {
  auto args = std::make_shared<GenerateArgs>();
  add_model_options(app, args->model);
  app.add_option("--prompt", args->prompt, "The prompt as text; needs a tokenizer");
  app.add_option("--tokenizer", args->tokenizer,
                 "File or folder of the tokenizer, or bytes; default: beside the model (tokenizer.json, vocab.json and "
                 "merges.txt, vocab.txt, tok*.bin)");
  app.add_option("--tokens", args->tokens, "The prompt as token ids: 1,2,3")->delimiter(',');
  app.add_option("--tokens-file", args->tokens_file, "The prompt as token ids: FILE.npy of int64 or int32");
  app.add_option("--max-new-tokens", args->max_new_tokens, "Most tokens to generate")->check(CLI::PositiveNumber);
  app.add_option("--stop-tokens", args->stop_tokens, "End after one of these tokens")->delimiter(',');
  app.add_flag("--ignore-end", args->ignore_end, "Go on after the tokenizer's end tokens");
  app.add_option("--temperature", args->sampling.temperature, "0: the most likely token (greedy); 1: as the model says");
  app.add_option("--top-k", args->sampling.top_k, "Choose among the K most likely tokens; 0: all");
  app.add_option("--top-p", args->sampling.top_p, "Choose among the most likely tokens that together reach P");
  app.add_option("--min-p", args->sampling.min_p, "Choose among tokens with at least this part of the largest probability");
  app.add_option("--repetition-penalty", args->sampling.repetition_penalty, "Divides positive logits of tokens seen; 1: off");
  app.add_option("--seed", args->sampling.seed, "Seed of the choice");
  app.add_option("--kv", args->kv, "Type of cached keys and values: f32, bf16 or int8");
  app.add_option("--prefill-chunk", args->prefill_chunk, "Tokens of the prompt that run at once")
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", args->threads, "Threads; 0: every core this process may use")->check(CLI::Range(0, 1024));
  app.add_option("--deadline", args->deadline_ms, "Give up after this many milliseconds (exit code 7)")
      ->check(CLI::PositiveNumber);
  auto* explain = app.add_flag("--explain", args->explain, "Print how a step of one token runs, instead of generating");
  auto* profile = app.add_flag("--profile", args->profile,
                               "Also say where the time of a token went, step by step, for the prompt and for the tokens "
                               "after it (on standard error, and in --json)");
  profile->excludes(explain);
  app.add_flag("--by-op", args->profile_style.by_op, "Of --profile: add up the steps of the same operator and kernel")
      ->needs(profile);
  app.add_option("--top", args->profile_style.top, "Of --profile: only the N slowest; 0: all, in the order they run")
      ->check(CLI::NonNegativeNumber)
      ->needs(profile);
  app.add_option("--json", args->json, "Write tokens and figures as JSON to FILE, or - for standard output");
  return [args] { return generate(*args); };
}

}  // namespace sprun::tools
