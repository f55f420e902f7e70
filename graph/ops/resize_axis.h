// How Resize maps positions of the output back to the input, one axis at a time (ONNX Resize-19 and its ancestors).
#pragma once

#include <cstdint>
#include <string_view>

#include "sprun/status.h"

namespace sprun::graph {

enum class ResizeMode : uint8_t { kNearest, kLinear, kCubic };
enum class CoordinateMode : uint8_t {
  kHalfPixel,
  kHalfPixelSymmetric,
  kPytorchHalfPixel,
  kAlignCorners,
  kAsymmetric,
  kTfHalfPixelForNn,
  kTfCropAndResize,
};
// kSimple is what version 10 did: floor when growing, ceil when shrinking.
enum class NearestMode : uint8_t { kRoundPreferFloor, kRoundPreferCeil, kFloor, kCeil, kSimple };

// kBadModel for unknown names.
Result<ResizeMode> parse_resize_mode(std::string_view name);
Result<CoordinateMode> parse_coordinate_mode(std::string_view name);
Result<NearestMode> parse_nearest_mode(std::string_view name);

// What all axes share.
struct ResizeStyle {
  ResizeMode mode = ResizeMode::kNearest;
  CoordinateMode coordinates = CoordinateMode::kHalfPixel;
  NearestMode nearest = NearestMode::kRoundPreferFloor;
  bool antialias = false, exclude_outside = false;
  double cubic_a = -0.75;
  float extrapolation_value = 0.0f;
};

struct ResizeAxis {
  int64_t in = 1, out = 1;
  double scale = 1.0;
  double out_length = 1.0;  // scale * in: not whole when it comes from a scale
  double roi_start = 0.0, roi_end = 1.0;

  // The output along this axis is the input.
  bool is_identity(CoordinateMode mode) const;
};

// True if position x gets extrapolation_value (kTfCropAndResize outside the input only).
bool is_extrapolated(const ResizeAxis& axis, CoordinateMode mode, int64_t x);
// The nearest input index for output position x, in [0, axis.in). Precondition: axis.in > 0.
int64_t nearest_index(const ResizeAxis& axis, const ResizeStyle& style, int64_t x);

// Most taps that weights() makes for one output position; at most axis.in.
int64_t max_taps(const ResizeAxis& axis, const ResizeStyle& style);
// The inputs [*first, *first + count) and their weights for output position x (linear and cubic); returns count.
// weights has room for max_taps().
int64_t tap_weights(const ResizeAxis& axis, const ResizeStyle& style, int64_t x, int64_t* first, double* weights);

}  // namespace sprun::graph
