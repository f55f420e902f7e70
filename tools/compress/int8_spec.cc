#include "tools/compress/int8_spec.h"

#include <charconv>
#include <optional>

#include <fmt/format.h>

namespace sprun::compress {
namespace {

// The number from 0 to 1 behind `prefix`; nullopt if there is none or it is another one.
std::optional<double> part_behind(std::string_view word, std::string_view prefix) {
  word.remove_prefix(prefix.size());
  double value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc() || end != word.data() + word.size() || !(value >= 0 && value <= 1))
    return std::nullopt;
  return value;
}

bool read_word(std::string_view word, Int8Spec& spec) {
  constexpr std::string_view kSmooth = "smooth", kResidual = "residual";
  if (word == "dynamic" || word == "static") {
    spec.mode = word == "static" ? Int8Mode::kStatic : Int8Mode::kDynamic;
    return true;
  }
  if (word.starts_with(kSmooth)) {
    spec.smooth = true;
    if (word == kSmooth) return true;
    const auto power = part_behind(word, kSmooth);
    spec.fixed_power = power.value_or(-1);
    return power.has_value();
  }
  if (word.starts_with(kResidual)) {
    spec.residual = true;
    if (word == kResidual) return true;
    const auto bound = part_behind(word, kResidual);
    spec.residual_above = bound.value_or(0);
    return bound.has_value();
  }
  return false;
}

}  // namespace

std::string Int8Spec::text() const {
  std::string text = mode == Int8Mode::kStatic ? "int8 static" : "int8";
  if (smooth) text += fixed_power < 0 ? " smooth" : fmt::format(" smooth{:g}", fixed_power);
  if (residual)
    text += residual_above > 0 ? fmt::format(" residual{:g}", residual_above) : " residual";
  return text;
}

Result<Int8Spec> parse_int8_spec(std::string_view text) {
  const Status bad(
      Code::kUsage,
      fmt::format("quantize '{}': expected int8, or int8: and some of dynamic, static, "
                  "smooth, smoothPOWER, residual, residualBOUND with commas between "
                  "(POWER and BOUND from 0 to 1)",
                  text));
  Int8Spec spec;
  if (text == "int8") return spec;
  if (!text.starts_with("int8:")) return bad;
  std::string_view rest = text.substr(5);
  while (true) {
    const size_t comma = rest.find(',');
    if (!read_word(rest.substr(0, comma), spec)) return bad;
    if (comma == std::string_view::npos) return spec;
    rest.remove_prefix(comma + 1);
  }
}

}  // namespace sprun::compress
