// Resize-10..19 and Upsample-7, 9.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "graph/ops/move_util.h"
#include "graph/ops/resize_axis.h"
#include "graph/ops/resize_smooth.h"

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

// How the last axis maps: each input element kFactor times, or through the table.
template <int kFactor, class T>
void repeat_elements(const T* src, int64_t count, T* dst) {
  for (int64_t i = 0; i < count; ++i) {
    for (int k = 0; k < kFactor; ++k) dst[i * kFactor + k] = src[i];
  }
}

// The whole number of times that every input element shows up in a row, or 0 when it is not that simple.
int64_t repeat_factor(const int64_t* columns, int64_t in, int64_t out) {
  if (out % in != 0) return 0;
  const int64_t factor = out / in;
  for (int64_t i = 0; i < out; ++i) {
    if (columns[i] != i / factor) return 0;
  }
  return factor;
}

struct NearestRow {
  const int64_t* columns;
  int64_t in, out, factor;

  template <class T>
  void run(const T* src, T* dst, T extrapolation) const {
    switch (factor) {
      case 1:
        std::copy_n(src, out, dst);
        return;
      case 2:
        repeat_elements<2>(src, in, dst);
        return;
      case 4:
        repeat_elements<4>(src, in, dst);
        return;
      default:
        break;
    }
    for (int64_t i = 0; i < out; ++i) dst[i] = columns[i] < 0 ? extrapolation : src[columns[i]];
  }
};

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
  const auto* columns = tables[last].as<int64_t>();
  const int64_t row = out.shape.back();
  const NearestRow nearest{columns, in.shape.back(), row, repeat_factor(columns, in.shape.back(), row)};
  const int64_t grain = std::max<int64_t>(1, 16384 / row);
  ctx.pool().parallel_for(out.num_elements() / row, grain, [&](int64_t begin, int64_t end, int) {
    int64_t previous = -1;  // offset of the input row that the output row before came from
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
      if (outside) {
        std::fill_n(to, row, extrapolation);
      } else if (offset == previous) {
        std::copy_n(to - row, row, to);
      } else {
        nearest.run(in.as<T>() + offset, to, extrapolation);
      }
      previous = outside ? -1 : offset;
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

Status run_resize(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  SPRUN_ASSIGN(const ResizePlan plan, at_node(ctx, make_plan(ctx, in.shape, true)));
  if (ctx.output(0).num_elements() == 0) return {};
  if (plan.rank == 0) {
    copy_through(ctx);
    return {};
  }
  if (plan.style.mode == ResizeMode::kNearest) return run_nearest(ctx, plan);
  return resize_smooth(ctx, std::span(plan.axes).first(static_cast<size_t>(plan.rank)), plan.style);
}

constexpr OpDef kOps[] = {
    {.name = "Resize", .since = 10, .inputs = {1, 4}, .infer = infer_resize, .run = run_resize},
    {.name = "Upsample", .since = 7, .inputs = {1, 2}, .infer = infer_resize, .run = run_resize},
};

}  // namespace

extern const std::span<const OpDef> k_resize_ops;
const std::span<const OpDef> k_resize_ops = kOps;

}  // namespace sprun::graph
