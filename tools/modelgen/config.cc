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

Config vit(int64_t layers, int64_t hidden, int64_t heads) {
  return {.family = Family::kVit, .layers = layers, .hidden = hidden, .heads = heads, .kv_heads = heads,
          .ffn = 4 * hidden, .labels = 1000, .opset = 13};
}

std::span<const Preset> presets() {
  static const Preset kPresets[] = {
      {"bert-tiny", bert(2, 128, 2)},           {"bert-mini", bert(4, 256, 4)},
      {"bert-base", bert(12, 768, 12)},         {"bert-large", bert(24, 1024, 16)},
      {"gpt2-mini", gpt2(4, 256, 4)},           {"gpt2", gpt2(12, 768, 12)},
      {"llama-mini", llama(4, 256, 8, 4, 688)}, {"llama-1b", llama(22, 2048, 32, 4, 5632)},
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

Status validate(const Config& config) {
  const auto check = [](bool condition, const std::string& text) {
    return condition ? Status() : Status(Code::kUsage, text);
  };
  constexpr int64_t kMaxSize = 1 << 24;
  const std::pair<const char*, int64_t> sizes[] = {
      {"layers", config.layers},   {"hidden", config.hidden}, {"heads", config.heads}, {"kv-heads", config.kv_heads},
      {"ffn", config.ffn},         {"vocab", config.vocab},   {"max-seq", config.max_seq}, {"image", config.image},
      {"patch", config.patch},     {"channels", config.channels}};
  for (const auto& [name, size] : sizes) {
    SPRUN_TRY(check(size > 0 && size <= kMaxSize, std::string(name) + " is " + std::to_string(size) +
                                                      ", expected 1 to " + std::to_string(kMaxSize)));
  }
  SPRUN_TRY(check(config.hidden % config.heads == 0, "hidden is not a multiple of heads"));
  SPRUN_TRY(check(config.heads % config.kv_heads == 0, "heads is not a multiple of kv-heads"));
  const bool gqa = config.family == Family::kLlama;
  SPRUN_TRY(check(gqa || config.kv_heads == config.heads, "only the LLaMA family has fewer kv-heads than heads"));
  SPRUN_TRY(check(!gqa || config.hidden / config.heads % 2 == 0, "rotary embedding needs an even head size"));
  SPRUN_TRY(check(config.opset >= 11 && config.opset <= 17, "opset is not in 11 to 17"));
  SPRUN_TRY(check(!config.qdq || config.quantization != Quantization::kNone, "Q/DQ form needs 8-bit weights"));
  SPRUN_TRY(check(!config.qdq || config.family == Family::kBert || config.family == Family::kVit,
                  "only the BERT and ViT families have a Q/DQ form"));
  SPRUN_TRY(check(!config.qdq || !config.per_channel || config.opset >= 13, "scales per channel need opset 13"));
  SPRUN_TRY(check(config.sparsity >= 0 && config.sparsity < 1, "sparsity is not in [0, 1)"));
  SPRUN_TRY(check(config.family != Family::kVit || config.image % config.patch == 0,
                  "image is not a multiple of patch"));
  SPRUN_TRY(check(config.labels >= (config.family == Family::kVit ? 1 : 0) && config.labels <= kMaxSize,
                  "labels is out of range"));
  const bool has_past = config.family == Family::kGpt2 || config.family == Family::kLlama;
  return check(has_past || !config.past, "only the GPT-2 and LLaMA families have a cache");
}

}  // namespace sprun::modelgen
