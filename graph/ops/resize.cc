// Resize-10..19 and Upsample-7, 9. Interpolation is separable: one pass per axis that changes.
#include "graph/ops/resize_axis.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

struct ResizePlan {
  ResizeStyle style;
  std::array<ResizeAxis, kMaxRank> axes;
  int rank = 0;
};

// --- reading the node

bool is_first_form(const Node& node) { return node.op_type == "Upsample" || node.version < 11; }

Result<ResizeStyle> read_style(const Node& node) {
  const AttrMap& attrs = node.attrs;
  ResizeStyle style;
  SPRUN_ASSIGN(style.mode, parse_resize_mode(attrs.get_string("mode", "nearest")));
  if (is_first_form(node)) {
    style.coordinates = CoordinateMode::kAsymmetric;
    style.nearest = NearestMode::kSimple;
    return style;
  }
  SPRUN_ASSIGN(style.coordinates,
               parse_coordinate_mode(attrs.get_string("coordinate_transformation_mode", "half_pixel")));
  SPRUN_ASSIGN(style.nearest, parse_nearest_mode(attrs.get_string("nearest_mode", "round_prefer_floor")));
  style.antialias = attrs.get_int("antialias", 0) != 0;
  style.exclude_outside = attrs.get_int("exclude_outside", 0) != 0;
  style.cubic_a = attrs.get_float("cubic_coeff_a", -0.75f);
  style.extrapolation_value = attrs.get_float("extrapolation_value", 0.0f);
  return style;
}

// A float tensor of any width as doubles.
template <class Ctx>
Result<std::vector<double>> read_floats(const Ctx& ctx, const ConstTensorView& view) {
  std::vector<double> values;
  SPRUN_TRY(dispatch_real(ctx, view.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t i = 0; i < view.num_elements(); ++i) values.push_back(load(view.as<T>()[i]));
    return Status();
  }));
  return values;
}

// Index of the inputs; -1 where the version has none.
struct InputIndex {
  int roi, scales, sizes;
};

InputIndex input_index(const Node& node) {
  if (node.op_type == "Upsample" && node.version < 9) return {-1, -1, -1};
  return is_first_form(node) ? InputIndex{-1, 1, -1} : InputIndex{1, 2, 3};
}

template <class Ctx>
bool is_given(const Ctx& ctx, int i) {
  return ctx.has_input(i) && ctx.input(i).num_elements() > 0;
}

Status set_scale(ResizeAxis& axis, double scale) {
  // The product in float as shape inference has always computed it: 0.7f * 10 is 7.
  const float length = std::floor(static_cast<float>(scale) * static_cast<float>(axis.in));
  if (!(scale > 0) || !(length <= static_cast<float>(kMaxElements))) {
    return {Code::kBadModel,
            "scale " + std::to_string(scale) + " for size " + std::to_string(axis.in) + " is out of range"};
  }
  axis.scale = scale;
  axis.out = static_cast<int64_t>(length);
  axis.out_length = scale * static_cast<double>(axis.in);
  return {};
}

Status apply_scales(ResizePlan& plan, std::span<const int> axes, std::span<const double> scales) {
  if (scales.size() != axes.size()) {
    return {Code::kBadModel, std::to_string(scales.size()) + " scales for " + std::to_string(axes.size()) + " axes"};
  }
  for (size_t i = 0; i < axes.size(); ++i) SPRUN_TRY(set_scale(plan.axes[static_cast<size_t>(axes[i])], scales[i]));
  return {};
}

Status apply_sizes(ResizePlan& plan, std::span<const int> axes, std::span<const int64_t> sizes,
                   std::string_view policy) {
  if (sizes.size() != axes.size()) {
    return {Code::kBadModel, std::to_string(sizes.size()) + " sizes for " + std::to_string(axes.size()) + " axes"};
  }
  std::optional<double> common;
  for (size_t i = 0; i < axes.size(); ++i) {
    ResizeAxis& axis = plan.axes[static_cast<size_t>(axes[i])];
    if (sizes[i] < 0 || sizes[i] > kMaxElements || (axis.in == 0 && sizes[i] > 0)) {
      return {Code::kBadModel, "cannot resize " + std::to_string(axis.in) + " to " + std::to_string(sizes[i])};
    }
    axis.out = sizes[i];
    axis.out_length = static_cast<double>(sizes[i]);
    axis.scale = axis.in == 0 ? 1.0 : axis.out_length / static_cast<double>(axis.in);
    if (!common) common = axis.scale;
    common = policy == "not_larger" ? std::min(*common, axis.scale) : std::max(*common, axis.scale);
  }
  if (policy == "stretch") return {};
  if (policy != "not_larger" && policy != "not_smaller") {
    return {Code::kBadModel, "unknown keep_aspect_ratio_policy '" + std::string(policy) + "'"};
  }
  for (const int a : axes) {
    ResizeAxis& axis = plan.axes[static_cast<size_t>(a)];
    axis.scale = *common;
    axis.out_length = axis.scale * static_cast<double>(axis.in);
    if (!(axis.out_length <= static_cast<double>(kMaxElements)))
      return {Code::kResourceLimit, "the output is too large"};
    axis.out = static_cast<int64_t>(axis.out_length + 0.5);
  }
  return {};
}

Status apply_roi(ResizePlan& plan, std::span<const int> axes, std::span<const double> roi) {
  if (roi.size() != 2 * axes.size()) {
    return {Code::kBadModel,
            "roi has " + std::to_string(roi.size()) + " numbers for " + std::to_string(axes.size()) + " axes"};
  }
  for (size_t i = 0; i < axes.size(); ++i) {
    plan.axes[static_cast<size_t>(axes[i])].roi_start = roi[i];
    plan.axes[static_cast<size_t>(axes[i])].roi_end = roi[axes.size() + i];
  }
  return {};
}

Result<std::vector<int>> resized_axes(const Node& node, int rank) {
  if (node.attrs.has("axes") && node.version >= 18) return normalize_axes(node.attrs.get_ints("axes"), rank);
  std::vector<int> all;
  for (int i = 0; i < rank; ++i) all.push_back(i);
  return all;
}

// Precondition: the data of scales and sizes is known. The roi is left out when its data is not: it moves no sizes.
template <class Ctx>
Result<ResizePlan> make_plan(const Ctx& ctx, const Shape& in, bool with_roi) {
  const Node& node = ctx.node();
  const InputIndex index = input_index(node);
  ResizePlan plan;
  plan.rank = in.rank();
  for (int i = 0; i < in.rank(); ++i) {
    plan.axes[static_cast<size_t>(i)] = {.in = in[i], .out = in[i], .out_length = static_cast<double>(in[i])};
  }
  SPRUN_ASSIGN(plan.style, read_style(node));
  SPRUN_ASSIGN(const std::vector<int> axes, resized_axes(node, in.rank()));
  if (is_given(ctx, index.scales)) {
    SPRUN_ASSIGN(const std::vector<double> scales, read_floats(ctx, ctx.input(index.scales)));
    SPRUN_TRY(apply_scales(plan, axes, scales));
  } else if (is_given(ctx, index.sizes)) {
    SPRUN_ASSIGN(const std::vector<int64_t> sizes, read_ints(ctx.input(index.sizes)));
    SPRUN_TRY(apply_sizes(plan, axes, sizes, node.attrs.get_string("keep_aspect_ratio_policy", "stretch")));
  } else {
    const std::vector<float>& list = node.attrs.get_floats("scales");
    SPRUN_TRY(apply_scales(plan, axes, std::vector<double>(list.begin(), list.end())));
  }
  if (with_roi && plan.style.coordinates == CoordinateMode::kTfCropAndResize) {
    if (!is_given(ctx, index.roi)) return Status(Code::kBadModel, "tf_crop_and_resize needs a roi");
    SPRUN_ASSIGN(const std::vector<double> roi, read_floats(ctx, ctx.input(index.roi)));
    SPRUN_TRY(apply_roi(plan, axes, roi));
  }
  return plan;
}

Status infer_resize(InferContext& ctx) {
  const InputIndex index = input_index(ctx.node());
  for (const int i : {index.scales, index.sizes}) {
    if (ctx.has_input(i) && !ctx.has_data(i)) return ctx.needs_data();
  }
  const Shape& in = ctx.shape(0);
  SPRUN_ASSIGN(const ResizePlan plan, at_node(ctx, make_plan(ctx, in, false)));
  Shape out = in;
  for (int i = 0; i < in.rank(); ++i) {
    out[i] = plan.axes[static_cast<size_t>(i)].out;
    if (out[i] > 0 && in[i] == 0) return ctx.error("cannot resize an empty axis of " + in.to_string());
  }
  SPRUN_TRY(at_node(ctx, Shape::checked(out.dims())).status());
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// --- nearest: a copy through one index table per axis

// Input index of every output position of one axis, -1 where the extrapolation value goes.
Result<Tensor> nearest_table(const ResizeAxis& axis, const ResizeStyle& style) {
  SPRUN_ASSIGN(Tensor table, Tensor::allocate(DType::kS64, {axis.out}));
  auto* index = table.mutable_view().as<int64_t>();
  const bool identity = axis.is_identity(style.coordinates);
  for (int64_t i = 0; i < axis.out; ++i) {
    index[i] = identity ? i : is_extrapolated(axis, style.coordinates, i) ? -1 : nearest_index(axis, style, i);
  }
  return table;
}

template <class T>
Status resize_nearest(RunContext& ctx, const ResizePlan& plan, T extrapolation) {
  const ConstTensorView& in = ctx.input(0);
  const TensorView& out = ctx.output(0);
  std::array<Tensor, kMaxRank> tables;
  for (size_t i = 0; i < static_cast<size_t>(plan.rank); ++i) {
    SPRUN_ASSIGN(tables[i], at_node(ctx, nearest_table(plan.axes[i], plan.style)));
  }
  const auto strides = row_major_strides(in.shape);
  const auto last = static_cast<size_t>(plan.rank - 1);
  const int64_t row = out.shape.back();
  const auto* columns = tables[last].as<int64_t>();
  const int64_t grain = std::max<int64_t>(1, 16384 / row);
  ctx.pool().parallel_for(out.num_elements() / row, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      int64_t rest = r, offset = 0;
      bool outside = false;
      for (size_t axis = last; axis-- > 0;) {
        const int64_t from = tables[axis].as<int64_t>()[rest % plan.axes[axis].out];
        rest /= plan.axes[axis].out;
        outside |= from < 0;
        offset += from * strides[axis];
      }
      T* to = out.as<T>() + r * row;
      for (int64_t i = 0; i < row; ++i) {
        to[i] = outside || columns[i] < 0 ? extrapolation : in.as<T>()[offset + columns[i]];
      }
    }
  });
  return {};
}

Status run_nearest(RunContext& ctx, const ResizePlan& plan) {
  const DType dtype = ctx.input(0).dtype;
  return dispatch_numeric(ctx, dtype == DType::kBool ? DType::kU8 : dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return resize_nearest<T>(ctx, plan, store_saturating<T>(plan.style.extrapolation_value));
  });
}

// --- linear, cubic: weighted sums along one axis after the other, in C (float or double)

template <class C>
struct AxisTable {
  Tensor first, count, weights;  // s64 [out], s64 [out] (0: extrapolated), C [out, taps]
  int64_t taps = 0;
};

template <class C>
Result<AxisTable<C>> make_axis_table(const ResizeAxis& axis, const ResizeStyle& style) {
  AxisTable<C> table;
  table.taps = max_taps(axis, style);
  const int64_t dims[] = {axis.out, table.taps};
  SPRUN_ASSIGN(const Shape weights_shape, Shape::checked(dims));
  SPRUN_ASSIGN(table.first, Tensor::allocate(DType::kS64, {axis.out}));
  SPRUN_ASSIGN(table.count, Tensor::allocate(DType::kS64, {axis.out}));
  SPRUN_ASSIGN(table.weights, Tensor::allocate(dtype_of<C>(), weights_shape));
  SPRUN_ASSIGN(Tensor scratch, Tensor::allocate(DType::kF64, {table.taps}));
  auto* precise = scratch.mutable_view().as<double>();
  for (int64_t i = 0; i < axis.out; ++i) {
    int64_t first = 0, count = 0;
    if (!is_extrapolated(axis, style.coordinates, i)) count = tap_weights(axis, style, i, &first, precise);
    table.first.mutable_view().template as<int64_t>()[i] = first;
    table.count.mutable_view().template as<int64_t>()[i] = count;
    C* weights = table.weights.mutable_view().template as<C>() + i * table.taps;
    for (int64_t k = 0; k < count; ++k) weights[k] = static_cast<C>(precise[k]);
  }
  return table;
}

// src [outer, in, inner] -> dst [outer, out, inner].
template <class C>
struct AxisPass {
  const AxisTable<C>& table;
  const ResizeAxis& axis;
  int64_t outer, inner;
  C extrapolation;

  void run(const C* src, C* dst, ThreadPool& pool) const {
    const int64_t grain = std::max<int64_t>(1, 8192 / (inner * table.taps));
    pool.parallel_for(outer * axis.out, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t i = item % axis.out;
        const int64_t count = table.count.template as<int64_t>()[i];
        const C* weights = table.weights.template as<C>() + i * table.taps;
        const C* from = src + (item / axis.out * axis.in + table.first.template as<int64_t>()[i]) * inner;
        C* to = dst + item * inner;
        if (inner == 1 && count > 0) {
          C sum = 0;
          for (int64_t k = 0; k < count; ++k) sum += weights[k] * from[k];
          *to = sum;
          continue;
        }
        std::fill_n(to, inner, count == 0 ? extrapolation : C(0));
        for (int64_t k = 0; k < count; ++k) {
          for (int64_t j = 0; j < inner; ++j) to[j] += weights[k] * from[k * inner + j];
        }
      }
    });
  }
};

template <class T, class C>
Result<Tensor> to_compute(const ConstTensorView& in, ThreadPool& pool) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(dtype_of<C>(), in.shape));
  C* out = tensor.mutable_view().as<C>();
  pool.parallel_for(in.num_elements(), 16384, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<C>(load(in.as<T>()[i]));
  });
  return tensor;
}

template <class T>
Status resize_smooth(RunContext& ctx, const ResizePlan& plan) {
  constexpr bool kWide = std::is_same_v<T, double> || (std::is_integral_v<T> && sizeof(T) >= 4);
  using C = std::conditional_t<kWide, double, float>;
  SPRUN_ASSIGN(Tensor current, at_node(ctx, to_compute<T, C>(ctx.input(0), ctx.pool())));
  for (int i = 0; i < plan.rank; ++i) {
    const ResizeAxis& axis = plan.axes[static_cast<size_t>(i)];
    if (axis.is_identity(plan.style.coordinates)) continue;
    SPRUN_ASSIGN(const AxisTable<C> table, at_node(ctx, make_axis_table<C>(axis, plan.style)));
    Shape shape = current.shape();
    shape[i] = axis.out;
    SPRUN_TRY(at_node(ctx, Shape::checked(shape.dims())).status());
    SPRUN_ASSIGN(Tensor next, at_node(ctx, Tensor::allocate(dtype_of<C>(), shape)));
    const AxisPass<C> pass{table, axis, shape.num_elements(0, i), shape.num_elements(i + 1, plan.rank),
                           static_cast<C>(plan.style.extrapolation_value)};
    pass.run(current.as<C>(), next.mutable_view().as<C>(), ctx.pool());
    current = std::move(next);
  }
  const TensorView& out = ctx.output(0);
  ctx.pool().parallel_for(out.num_elements(), 16384, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) out.as<T>()[i] = store_saturating<T>(current.as<C>()[i]);
  });
  return {};
}

Status run_resize(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  SPRUN_ASSIGN(const ResizePlan plan, at_node(ctx, make_plan(ctx, in.shape, true)));
  if (ctx.output(0).num_elements() == 0) return {};
  if (plan.rank == 0) {
    copy_through(ctx);
    return {};
  }
  if (plan.style.mode == ResizeMode::kNearest) return run_nearest(ctx, plan);
  return dispatch_numeric(ctx, in.dtype,
                          [&](auto tag) { return resize_smooth<typename decltype(tag)::type>(ctx, plan); });
}

constexpr OpDef kOps[] = {
    {.name = "Resize", .since = 10, .inputs = {1, 4}, .infer = infer_resize, .run = run_resize},
    {.name = "Upsample", .since = 7, .inputs = {1, 2}, .infer = infer_resize, .run = run_resize},
};

}  // namespace

extern const std::span<const OpDef> k_resize_ops;
const std::span<const OpDef> k_resize_ops = kOps;

}  // namespace sprun::graph
