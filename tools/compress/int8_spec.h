// What one --quantize asks of a layer: "int8", "int8:static", "int8:smooth,residual0.03".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "sprun/status.h"

namespace sprun::compress {

// How the input of an int8 layer gets its scale.
//   kDynamic  when running, one per tensor
//   kStatic   from calibration data
enum class Int8Mode : uint8_t { kDynamic, kStatic };

struct Int8Spec {
  Int8Mode mode = Int8Mode::kDynamic;
  // Divide each channel of the input by a scale that its weights take (smoothing.h). fixed_power:
  // 0 to 1, or negative: the one of some powers with the smallest error, none among them.
  bool smooth = false;
  double fixed_power = -1;
  // A second int8 product takes what the rounding of the input has left, in layers whose relative
  // rounding error is above the bound.
  bool residual = false;
  double residual_above = 0;

  bool needs_data() const {
    return mode == Int8Mode::kStatic || smooth || (residual && residual_above > 0);
  }
  std::string text() const;
  bool operator==(const Int8Spec&) const = default;
};

// int8[:WORD[,WORD]..] with the words dynamic, static, smooth, smoothPOWER, residual,
// residualBOUND. kUsage.
Result<Int8Spec> parse_int8_spec(std::string_view text);

}  // namespace sprun::compress
