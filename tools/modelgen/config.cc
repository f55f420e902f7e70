#include "tools/modelgen/config.h"

#include <charconv>
#include <span>
#include <string_view>
#include <utility>

namespace sprun::modelgen {

namespace {
struct Preset {
  std::string_view name;
  Config config;
};

Config bert(int64_t layers, int64_t hidden, int64_t heads) {
  return {.family = Family::kBert, .layers = layers, .hidden = hidden, .heads = heads, .kv_heads = heads,
          .ffn = 4 * hidden};
}

Config gpt2(int64_t layers, int64_t hidden, int64_t heads) {
  return {.family = Family::kGpt2, .layers = layers, .hidden = hidden, .heads = heads, .kv_heads = heads,
          .ffn = 4 * hidden, .vocab = 50257, .max_seq = 1024, .past = true, .opset = 13};
}

Config llama(int64_t layers, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t ffn) {
  return {.family = Family::kLlama, .layers = layers, .hidden = hidden, .heads = heads, .kv_heads = kv_heads,
          .ffn = ffn, .vocab = 32000, .max_seq = 2048, .past = true};
}

// As Gemma 2 and 3n: heads of their own size, tied head; Gelu and ReduceMean as exporters write them today. Small ones
// have a head of their own, because a tied one with random weights repeats its input.
Config gemma(Config config, Ffn kind, double active) {
  config.head_size = config.hidden >= 2048 ? 256 : 16;
  config.ffn_kind = kind;
  config.active = active;
  config.tied = config.hidden >= 2048;
  config.opset = 20;
  return config;
}

Config spark(Config config, double active, int64_t score_inputs) {
  config = gemma(std::move(config), Ffn::kSpark, active);
  config.score_inputs = score_inputs;
  return config;
}

Config with_vocab(Config config, int64_t vocab) {
  config.vocab = vocab;
  return config;
}

Config reglu(Config config, double active) {
  config.ffn_kind = Ffn::kReGlu;
  config.active = active;
  return config;
}

Config vit(int64_t layers, int64_t hidden, int64_t heads) {
  return {.family = Family::kVit, .layers = layers, .hidden = hidden, .heads = heads, .kv_heads = heads,
          .ffn = 4 * hidden, .labels = 1000, .opset = 13};
}

std::span<const Preset> presets() {
  static const Preset kPresets[] = {
      {"bert-tiny", bert(2, 128, 2)},           {"bert-mini", bert(4, 256, 4)},
      {"bert-base", bert(12, 768, 12)},         {"bert-large", bert(24, 1024, 16)},
      {"gpt2-mini", gpt2(4, 256, 4)},           {"gpt2", gpt2(12, 768, 12)},
      {"llama-mini", llama(4, 256, 8, 4, 688)}, {"llama-1b", llama(16, 2048, 32, 8, 8192)},
      {"spark-mini", spark(with_vocab(llama(2, 96, 4, 2, 384), 256), 0.08, 48)},
      {"spark-mini-dense", gemma(with_vocab(llama(2, 96, 4, 2, 256), 256), Ffn::kGeGlu, 0)},
      {"spark-2b", spark(with_vocab(llama(26, 2304, 8, 4, 13824), 256128), 0.08, 1024)},
      {"spark-2b-dense", gemma(with_vocab(llama(26, 2304, 8, 4, 9216), 256128), Ffn::kGeGlu, 0)},
      {"topk-mini", gemma(with_vocab(llama(2, 96, 4, 2, 384), 256), Ffn::kTopK, 0.05)},
      {"topk-4b", gemma(with_vocab(llama(35, 2048, 8, 2, 16384), 262144), Ffn::kTopK, 0.05)},
      {"reglu-mini", reglu(with_vocab(llama(2, 96, 4, 2, 384), 256), 0.1)},
      {"reglu-8b", reglu(llama(32, 4096, 32, 8, 14336), 0.1)},
      {"vit-mini", vit(4, 192, 3)},             {"vit-base", vit(12, 768, 12)},
  };
  return kPresets;
}

bool parse_int(std::string_view text, int* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && *value > 0;
}
}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.emplace_back(preset.name);
  return names;
}

Result<Config> preset(const std::string& name) {
  std::string known;
  for (const Preset& preset : presets()) {
    if (preset.name == name) return preset.config;
    known += (known.empty() ? "" : ", ") + std::string(preset.name);
  }
  return Status(Code::kUsage, "no preset '" + name + "'; there are " + known);
}

Result<Ffn> parse_ffn(const std::string& text) {
  constexpr std::pair<std::string_view, Ffn> kNames[] = {{"swiglu", Ffn::kSwiGlu}, {"geglu", Ffn::kGeGlu},
                                                         {"reglu", Ffn::kReGlu},   {"relu", Ffn::kRelu},
                                                         {"topk", Ffn::kTopK},     {"spark", Ffn::kSpark}};
  for (const auto& [name, kind] : kNames) {
    if (name == text) return kind;
  }
  return Status(Code::kUsage, "no feed-forward layer '" + text + "'");
}

Result<Pattern> parse_pattern(const std::string& text) {
  Pattern pattern;
  if (text == "unstructured") return pattern;
  const size_t at = text.find_first_of("x:");
  int first = 0, second = 0;
  const bool parsed = at != std::string::npos && parse_int(std::string_view(text).substr(0, at), &first) &&
                      parse_int(std::string_view(text).substr(at + 1), &second);
  const bool is_nm = parsed && text[at] == ':';
  if (!parsed || (is_nm && first > second)) {
    return Status(Code::kUsage, "pattern '" + text + "' is not unstructured, ROWSxCOLS or N:M");
  }
  if (is_nm) {
    pattern.n = first;
    pattern.m = second;
  } else {
    pattern.rows = first;
    pattern.cols = second;
  }
  return pattern;
}

namespace {
Status check(bool condition, const std::string& text) { return condition ? Status() : Status(Code::kUsage, text); }

Status validate_decoder(const Config& config) {
  const bool llama = config.family == Family::kLlama;
  SPRUN_TRY(check(llama || config.kv_heads == config.heads, "only the LLaMA family has fewer kv-heads than heads"));
  SPRUN_TRY(check(llama || (config.ffn_kind == Ffn::kSwiGlu && config.head_size == 0 && !config.tied),
                  "only the LLaMA family has a choice of feed-forward layer, head size and head"));
  if (!llama) return {};
  SPRUN_TRY(check(config.size_of_head() % 2 == 0, "rotary embedding needs an even head size"));
  const bool top = config.ffn_kind == Ffn::kTopK || config.ffn_kind == Ffn::kSpark;
  SPRUN_TRY(check(config.active >= 0 && config.active < 1 && (!top || config.active > 0),
                  "the share of active units is not between 0 and 1"));
  const bool spark = config.ffn_kind == Ffn::kSpark;
  return check(!spark || (config.score_inputs > 0 && config.score_inputs < config.hidden),
               "Spark needs score-inputs between 0 and hidden");
}
}  // namespace

Status validate(const Config& config) {
  constexpr int64_t kMaxSize = 1 << 24;
  const std::pair<const char*, int64_t> sizes[] = {
      {"layers", config.layers},   {"hidden", config.hidden}, {"heads", config.heads}, {"kv-heads", config.kv_heads},
      {"ffn", config.ffn},         {"vocab", config.vocab},   {"max-seq", config.max_seq}, {"image", config.image},
      {"patch", config.patch},     {"channels", config.channels}};
  for (const auto& [name, size] : sizes) {
    SPRUN_TRY(check(size > 0 && size <= kMaxSize, std::string(name) + " is " + std::to_string(size) +
                                                      ", expected 1 to " + std::to_string(kMaxSize)));
  }
  SPRUN_TRY(check(config.head_size >= 0 && config.head_size <= kMaxSize, "head-size is out of range"));
  SPRUN_TRY(check(config.head_size > 0 || config.hidden % config.heads == 0, "hidden is not a multiple of heads"));
  SPRUN_TRY(check(config.heads % config.kv_heads == 0, "heads is not a multiple of kv-heads"));
  SPRUN_TRY(validate_decoder(config));
  SPRUN_TRY(check(config.opset >= 11 && config.opset <= 20, "opset is not in 11 to 20"));
  SPRUN_TRY(check(config.nbits == 0 || config.nbits == 4 || config.nbits == 8, "nbits is not 4 or 8"));
  SPRUN_TRY(check(config.nbits == 0 || config.quantization == Quantization::kNone, "nbits and int8 exclude each other"));
  const int64_t block = config.block;
  SPRUN_TRY(check(block >= 16 && block <= 256 && (block & (block - 1)) == 0, "block is not 16, 32, 64, 128 or 256"));
  SPRUN_TRY(check(!config.qdq || config.quantization != Quantization::kNone, "Q/DQ form needs 8-bit weights"));
  SPRUN_TRY(check(!config.qdq || config.family == Family::kBert || config.family == Family::kVit,
                  "only the BERT and ViT families have a Q/DQ form"));
  SPRUN_TRY(check(!config.qdq || !config.weight_only, "qdq and weight-only exclude each other"));
  SPRUN_TRY(check(!config.weight_only || config.quantization != Quantization::kNone, "weight-only needs 8-bit weights"));
  SPRUN_TRY(check(!(config.qdq || config.weight_only) || !config.per_channel || config.opset >= 13,
                  "scales per channel need opset 13"));
  SPRUN_TRY(check(config.sparsity >= 0 && config.sparsity < 1, "sparsity is not in [0, 1)"));
  SPRUN_TRY(check(config.family != Family::kVit || config.image % config.patch == 0,
                  "image is not a multiple of patch"));
  SPRUN_TRY(check(config.labels >= (config.family == Family::kVit ? 1 : 0) && config.labels <= kMaxSize,
                  "labels is out of range"));
  const bool has_past = config.family == Family::kGpt2 || config.family == Family::kLlama;
  return check(has_past || !config.past, "only the GPT-2 and LLaMA families have a cache");
}

}  // namespace sprun::modelgen
