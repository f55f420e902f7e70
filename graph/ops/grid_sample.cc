// GridSample-16..22 for any number of spatial axes, and AffineGrid-20.
#include <algorithm>
#include <cmath>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

constexpr int kMaxSpatial = kMaxRank - 2;

// --- GridSample: y[n, c, o] = x[n, c] interpolated at grid[n, o]

enum class Interpolation : uint8_t { kNearest, kLinear, kCubic };
enum class Padding : uint8_t { kZeros, kBorder, kReflection };

struct SampleStyle {
  Interpolation mode = Interpolation::kLinear;
  Padding padding = Padding::kZeros;
  bool align_corners = false;
};

Result<SampleStyle> read_style(const AttrMap& attrs) {
  SampleStyle style;
  const std::string_view mode = attrs.get_string("mode", "linear");
  if (mode == "nearest") {
    style.mode = Interpolation::kNearest;
  } else if (mode == "cubic" || mode == "bicubic") {
    style.mode = Interpolation::kCubic;
  } else if (mode != "linear" && mode != "bilinear") {
    return Status(Code::kBadModel, "unknown mode '" + std::string(mode) + "'");
  }
  const std::string_view padding = attrs.get_string("padding_mode", "zeros");
  if (padding == "border") {
    style.padding = Padding::kBorder;
  } else if (padding == "reflection") {
    style.padding = Padding::kReflection;
  } else if (padding != "zeros") {
    return Status(Code::kBadModel, "unknown padding_mode '" + std::string(padding) + "'");
  }
  style.align_corners = attrs.get_int("align_corners", 0) != 0;
  return style;
}

Status infer_grid_sample(InferContext& ctx) {
  const Shape &x = ctx.shape(0), &grid = ctx.shape(1);
  SPRUN_TRY(at_node(ctx, read_style(ctx.attrs())).status());
  if (x.rank() < 3 || grid.rank() != x.rank() || grid[0] != x[0] || grid.back() != x.rank() - 2) {
    return ctx.error("grid of shape " + grid.to_string() + " does not fit an input of shape " + x.to_string());
  }
  Shape out = x;
  for (int i = 2; i < x.rank(); ++i) {
    out[i] = grid[i - 1];
    if (x[i] == 0) return ctx.error("the input of shape " + x.to_string() + " has an empty axis");
  }
  SPRUN_TRY(at_node(ctx, Shape::checked(out.dims())).status());
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// Mirrors x at low and high until it lies between them.
double reflect(double x, double low, double high) {
  const double range = high - low;
  if (!(range > 0)) return low;
  const double distance = x < low ? low - x : x > high ? x - high : 0;
  if (distance == 0) return x;
  const double turns = std::floor(distance / range), rest = distance - turns * range;
  const bool from_near_side = std::fmod(turns, 2.0) == 0;
  return (x < low) == from_near_side ? low + rest : high - rest;
}

// The up to four input positions that one output position reads along one axis.
struct AxisTaps {
  int count = 1;
  std::array<int64_t, 4> index{};  // -1: outside, counts as zero
  std::array<double, 4> weight{1, 0, 0, 0};
};

// A position in the input, or -1 for zero.
int64_t padded_index(int64_t i, int64_t size, const SampleStyle& style) {
  if (i >= 0 && i < size) return i;
  if (style.padding == Padding::kZeros) return -1;
  if (style.padding == Padding::kReflection) {
    const double low = style.align_corners ? 0.0 : -0.5;
    i = static_cast<int64_t>(reflect(static_cast<double>(i), low, static_cast<double>(size - 1) - low));
  }
  return std::clamp<int64_t>(i, 0, size - 1);
}

// grid_value in [-1, 1] spans the axis; other values are outside.
AxisTaps make_taps(double grid_value, int64_t size, const SampleStyle& style) {
  constexpr double kFar = 0x1p40;
  const auto length = static_cast<double>(size);
  double x = style.align_corners ? (grid_value + 1) / 2 * (length - 1) : ((grid_value + 1) * length - 1) / 2;
  x = std::isnan(x) ? -kFar : std::clamp(x, -kFar, kFar);
  if (style.mode == Interpolation::kNearest) x = std::nearbyint(x);
  const double low = style.align_corners ? 0.0 : -0.5, high = length - 1 - low;
  if (x < low || x > high) {
    if (style.padding == Padding::kBorder) x = std::clamp(x, 0.0, length - 1);
    if (style.padding == Padding::kReflection) x = reflect(x, low, high);
  }
  AxisTaps taps;
  if (style.mode == Interpolation::kNearest) {
    taps.index[0] = padded_index(static_cast<int64_t>(x), size, style);
    return taps;
  }
  const double floor = std::floor(x), t = x - floor;
  const auto base = static_cast<int64_t>(floor);
  if (style.mode == Interpolation::kLinear) {
    taps.count = 2;
    taps.weight = {1 - t, t, 0, 0};
  } else {
    constexpr double a = -0.75;  // R. Keys' parameter as ONNX fixes it
    const auto outer = [](double d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
    const auto inner = [](double d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
    taps.count = 4;
    taps.weight = {outer(t + 1), inner(t), inner(1 - t), outer(2 - t)};
  }
  const int64_t first = taps.count == 4 ? base - 1 : base;
  for (int k = 0; k < taps.count; ++k) taps.index[static_cast<size_t>(k)] = padded_index(first + k, size, style);
  return taps;
}

// The weighted sum over the product of the taps of axes [axis, spatial).
template <class T>
double sample(const T* x, const std::array<AxisTaps, kMaxSpatial>& taps,
              const std::array<int64_t, kMaxSpatial>& strides, size_t axis, size_t spatial) {
  double sum = 0;
  for (size_t k = 0; k < static_cast<size_t>(taps[axis].count); ++k) {
    const int64_t index = taps[axis].index[k];
    if (index < 0) continue;
    const T* at = x + index * strides[axis];
    sum += taps[axis].weight[k] *
           (axis + 1 == spatial ? static_cast<double>(load(*at)) : sample(at, taps, strides, axis + 1, spatial));
  }
  return sum;
}

template <class T, class G>
void sample_grid(const RunContext& ctx, const SampleStyle& style) {
  const ConstTensorView &x = ctx.input(0), &grid = ctx.input(1);
  const TensorView& out = ctx.output(0);
  const auto spatial = static_cast<size_t>(x.shape.rank() - 2);
  const auto all_strides = row_major_strides(x.shape);
  std::array<int64_t, kMaxSpatial> strides{};
  std::copy_n(all_strides.begin() + 2, spatial, strides.begin());
  const int64_t points = out.shape.num_elements(2, out.shape.rank()), channels = x.shape[1];
  const int64_t plane = x.shape.num_elements(2, x.shape.rank());
  ctx.pool().parallel_for(x.shape[0] * points, 256, [&](int64_t begin, int64_t end, int) {
    std::array<AxisTaps, kMaxSpatial> taps;
    for (int64_t p = begin; p < end; ++p) {
      const G* at = grid.as<G>() + p * static_cast<int64_t>(spatial);
      for (size_t axis = 0; axis < spatial; ++axis) {  // the grid names the last axis first
        taps[axis] =
            make_taps(static_cast<double>(load(at[spatial - 1 - axis])), x.shape[static_cast<int>(axis) + 2], style);
      }
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t image = p / points * channels + c;
        const T* from = x.as<T>() + image * plane;
        T* to = out.as<T>() + image * points + p % points;
        if (style.mode != Interpolation::kNearest) {
          *to = store_saturating<T>(sample(from, taps, strides, 0, spatial));
          continue;
        }
        int64_t offset = 0;
        bool outside = false;
        for (size_t axis = 0; axis < spatial; ++axis) {
          outside |= taps[axis].index[0] < 0;
          offset += taps[axis].index[0] * strides[axis];
        }
        *to = outside ? T{} : from[offset];
      }
    }
  });
}

Status run_grid_sample(RunContext& ctx) {
  SPRUN_ASSIGN(const SampleStyle style, at_node(ctx, read_style(ctx.attrs())));
  const DType dtype = ctx.input(0).dtype;
  if (ctx.output(0).num_elements() == 0) return {};
  return dispatch_numeric(ctx, dtype == DType::kBool ? DType::kU8 : dtype, [&](auto tag) {
    return dispatch_real(ctx, ctx.input(1).dtype, [&](auto grid_tag) {
      sample_grid<typename decltype(tag)::type, typename decltype(grid_tag)::type>(ctx, style);
      return Status();
    });
  });
}

// --- AffineGrid: theta [N, d, d + 1] applied to the evenly spaced positions of an image of `size` [N, C, spatial...]

Status infer_affine_grid(InferContext& ctx) {
  if (!ctx.has_input(1)) return ctx.error("the size input is missing");
  if (!ctx.has_data(1)) return ctx.needs_data();
  const Shape& theta = ctx.shape(0);
  SPRUN_ASSIGN(const SmallInts size, at_node(ctx, read_small_ints(ctx.input(1))));
  const int spatial = size.count - 2;
  if ((spatial != 2 && spatial != 3) || theta != Shape{size[0], spatial, spatial + 1}) {
    return ctx.error("theta of shape " + theta.to_string() + " does not fit a size of " + std::to_string(size.count) +
                     " numbers");
  }
  std::vector<int64_t> dims = {size[0]};
  for (int i = 0; i < spatial; ++i) dims.push_back(size[i + 2]);
  dims.push_back(spatial);
  SPRUN_ASSIGN(const Shape out, at_node(ctx, Shape::checked(dims)));
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// Position i of an axis in [-1, 1]: centres of the corner elements, or their outer edges, are -1 and 1.
double grid_position(int64_t i, int64_t size, bool align_corners) {
  const auto x = static_cast<double>(i), length = static_cast<double>(size);
  if (!align_corners) return (2 * x + 1) / length - 1;
  return size > 1 ? 2 * x / (length - 1) - 1 : -1.0;
}

Status run_affine_grid(RunContext& ctx) {
  const TensorView& out = ctx.output(0);
  const bool align_corners = ctx.attrs().get_int("align_corners", 0) != 0;
  const int spatial = out.shape.rank() - 2;
  if (out.num_elements() == 0) return {};
  return dispatch_real(ctx, out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t points = out.shape.num_elements(1, spatial + 1);
    ctx.pool().parallel_for(out.shape[0] * points, 4096, [&](int64_t begin, int64_t end, int) {
      for (int64_t p = begin; p < end; ++p) {
        std::array<double, 4> position{0, 0, 0, 0};  // innermost axis first, then 1
        int64_t rest = p % points;
        for (int k = 0; k < spatial; ++k) {
          const int64_t size = out.shape[spatial - k];
          position[static_cast<size_t>(k)] = grid_position(rest % size, size, align_corners);
          rest /= size;
        }
        position[static_cast<size_t>(spatial)] = 1;
        const T* theta = ctx.input(0).as<T>() + p / points * spatial * (spatial + 1);
        for (int row = 0; row < spatial; ++row) {
          double sum = 0;
          for (int k = 0; k <= spatial; ++k) {
            sum += static_cast<double>(load(theta[row * (spatial + 1) + k])) * position[static_cast<size_t>(k)];
          }
          out.as<T>()[p * spatial + row] = store<T>(sum);
        }
      }
    });
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "AffineGrid", .since = 20, .inputs = {2, 2}, .infer = infer_affine_grid, .run = run_affine_grid},
    {.name = "GridSample", .since = 16, .inputs = {2, 2}, .infer = infer_grid_sample, .run = run_grid_sample},
    {.domain = "com.microsoft",
     .name = "GridSample",
     .inputs = {2, 2},
     .infer = infer_grid_sample,
     .run = run_grid_sample},
};

}  // namespace

extern const std::span<const OpDef> k_grid_sample_ops;
const std::span<const OpDef> k_grid_sample_ops = kOps;

}  // namespace sprun::graph
