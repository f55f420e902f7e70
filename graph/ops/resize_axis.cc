#include "graph/ops/resize_axis.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace sprun::graph {
namespace {

template <class E, size_t kCount>
Result<E> lookup(const std::pair<std::string_view, E> (&table)[kCount], std::string_view what, std::string_view name) {
  for (const auto& [key, value] : table) {
    if (key == name) return value;
  }
  return Status(Code::kBadModel, "unknown " + std::string(what) + " '" + std::string(name) + "'");
}

// A whole number that is safe to convert, whatever the file made of the coordinate.
int64_t whole(double x) {
  constexpr double kLimit = 0x1p52;
  return std::isnan(x) ? 0 : static_cast<int64_t>(std::clamp(x, -kLimit, kLimit));
}

// The piecewise polynomial kernels; support is 1 and 2.
double linear_kernel(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

// R. Keys: Cubic convolution interpolation for digital image processing, equation 4.
double cubic_kernel(double x, double a) {
  x = std::abs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

// The window of input positions around the coordinate: base + [begin, begin + count), before clipping to the input.
struct Window {
  int64_t begin = 0, count = 0;
  double stretch = 1.0;  // of distances: below 1 when antialiasing widens the kernel
};

Window window_of(const ResizeAxis& axis, const ResizeStyle& style) {
  const double support = style.mode == ResizeMode::kCubic ? 2.0 : 1.0;
  Window window;
  window.stretch = style.antialias ? std::min(axis.scale, 1.0) : 1.0;
  window.begin = whole(std::floor(-support / window.stretch)) + 1;
  window.count = 2 - 2 * window.begin;
  return window;
}

// The input coordinate that output position x shows. Where the result is rounded to a whole position, F is float: ties
// between neighbours then fall as they do in other runtimes, which all compute them in float.
template <class F>
F source_coordinate(const ResizeAxis& axis, CoordinateMode mode, int64_t position) {
  const auto x = static_cast<F>(position), scale = static_cast<F>(axis.scale), last = static_cast<F>(axis.in - 1);
  const auto out_length = static_cast<F>(axis.out_length), half = static_cast<F>(0.5);
  const F half_pixel = (x + half) / scale - half;
  switch (mode) {
    case CoordinateMode::kHalfPixel:
      return half_pixel;
    case CoordinateMode::kPytorchHalfPixel:
      return axis.out > 1 ? half_pixel : 0;
    case CoordinateMode::kAsymmetric:
      return x / scale;
    case CoordinateMode::kTfHalfPixelForNn:
      return (x + half) / scale;
    case CoordinateMode::kAlignCorners:
      return axis.out > 1 ? x * last / (out_length - 1) : 0;
    case CoordinateMode::kHalfPixelSymmetric: {
      const F adjustment = static_cast<F>(axis.out) / out_length;
      return static_cast<F>(axis.in) / 2 * (1 - adjustment) + half_pixel;
    }
    case CoordinateMode::kTfCropAndResize:
      break;
  }
  const auto start = static_cast<F>(axis.roi_start), end = static_cast<F>(axis.roi_end);
  if (axis.out <= 1) return half * (start + end) * last;
  return start * last + x * (end - start) * last / (out_length - 1);
}

}  // namespace

Result<ResizeMode> parse_resize_mode(std::string_view name) {
  constexpr std::pair<std::string_view, ResizeMode> kTable[] = {{"nearest", ResizeMode::kNearest},
                                                                {"linear", ResizeMode::kLinear},
                                                                {"bilinear", ResizeMode::kLinear},
                                                                {"cubic", ResizeMode::kCubic}};
  return lookup(kTable, "mode", name);
}

Result<CoordinateMode> parse_coordinate_mode(std::string_view name) {
  constexpr std::pair<std::string_view, CoordinateMode> kTable[] = {
      {"half_pixel", CoordinateMode::kHalfPixel},
      {"half_pixel_symmetric", CoordinateMode::kHalfPixelSymmetric},
      {"pytorch_half_pixel", CoordinateMode::kPytorchHalfPixel},
      {"align_corners", CoordinateMode::kAlignCorners},
      {"asymmetric", CoordinateMode::kAsymmetric},
      {"tf_half_pixel_for_nn", CoordinateMode::kTfHalfPixelForNn},
      {"tf_crop_and_resize", CoordinateMode::kTfCropAndResize}};
  return lookup(kTable, "coordinate_transformation_mode", name);
}

Result<NearestMode> parse_nearest_mode(std::string_view name) {
  constexpr std::pair<std::string_view, NearestMode> kTable[] = {{"round_prefer_floor", NearestMode::kRoundPreferFloor},
                                                                 {"round_prefer_ceil", NearestMode::kRoundPreferCeil},
                                                                 {"floor", NearestMode::kFloor},
                                                                 {"ceil", NearestMode::kCeil}};
  return lookup(kTable, "nearest_mode", name);
}

bool ResizeAxis::is_identity(CoordinateMode mode) const {
  const bool cropped = mode == CoordinateMode::kTfCropAndResize && (roi_start != 0.0 || roi_end != 1.0);
  return in == out && std::abs(scale - 1.0) < 1e-9 && !cropped;
}

bool is_extrapolated(const ResizeAxis& axis, CoordinateMode mode, int64_t x) {
  if (mode != CoordinateMode::kTfCropAndResize) return false;
  const auto at = source_coordinate<float>(axis, mode, x);
  return !(at >= 0 && at <= static_cast<float>(axis.in - 1));
}

int64_t nearest_index(const ResizeAxis& axis, const ResizeStyle& style, int64_t x) {
  const auto at = source_coordinate<float>(axis, style.coordinates, x);
  float index = 0;
  switch (style.nearest) {
    case NearestMode::kRoundPreferFloor:
      index = std::ceil(at - 0.5f);
      break;
    case NearestMode::kRoundPreferCeil:
      index = std::floor(at + 0.5f);
      break;
    case NearestMode::kFloor:
      index = std::floor(at);
      break;
    case NearestMode::kCeil:
      index = std::ceil(at);
      break;
    case NearestMode::kSimple:
      index = axis.scale < 1.0 ? std::ceil(at) : std::floor(at);
      break;
  }
  return std::clamp<int64_t>(whole(index), 0, axis.in - 1);
}

int64_t max_taps(const ResizeAxis& axis, const ResizeStyle& style) {
  return std::min(window_of(axis, style).count, axis.in);
}

int64_t tap_weights(const ResizeAxis& axis, const ResizeStyle& style, int64_t x, int64_t* first, double* weights) {
  const Window window = window_of(axis, style);
  const auto at = source_coordinate<double>(axis, style.coordinates, x);
  // The base is the position left of the coordinate, also when that is whole: the ratio lies in (0, 1].
  const int64_t base = whole(std::ceil(at)) - 1;
  const double ratio = at - static_cast<double>(base);
  const int64_t begin = std::clamp<int64_t>(base + window.begin, 0, axis.in - 1);
  const int64_t end = std::clamp<int64_t>(base + window.begin + window.count - 1, 0, axis.in - 1) + 1;
  std::fill(weights, weights + (end - begin), 0.0);
  double sum = 0, inside_sum = 0;
  for (int64_t j = window.begin; j < window.begin + window.count; ++j) {
    const double distance = (static_cast<double>(j) - ratio) * window.stretch;
    const double weight =
        style.mode == ResizeMode::kCubic ? cubic_kernel(distance, style.cubic_a) : linear_kernel(distance);
    const int64_t index = base + j;
    const bool inside = index >= 0 && index < axis.in;
    sum += weight;
    if (inside) inside_sum += weight;
    if (inside || !style.exclude_outside) weights[std::clamp(index, begin, end - 1) - begin] += weight;
  }
  const double total = style.exclude_outside ? inside_sum : style.antialias ? sum : 1.0;
  for (int64_t i = 0; total != 0 && i < end - begin; ++i) weights[i] /= total;
  *first = begin;
  return end - begin;
}

}  // namespace sprun::graph
