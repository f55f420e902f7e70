// Slice-1..13: starts, ends, axes and steps as attributes (up to version 9) or inputs.
#include <algorithm>
#include <limits>

#include "graph/ops/move_util.h"

namespace sprun::graph {
namespace {

struct Range {
  int64_t start = 0, count = 0, step = 1;
};

struct SliceParams {
  std::array<Range, kMaxRank> ranges;  // one per axis of the input
};

// Elements start, start + step, ... before `end` of an axis of `size`, after ONNX's wrapping and clamping.
Range clamped_range(int64_t start, int64_t end, int64_t step, int64_t size) {
  step = std::max(step, -std::numeric_limits<int64_t>::max());
  if (start < 0) start += size;
  if (end < 0) end += size;
  Range range{.step = step};
  if (step > 0) {
    start = std::clamp<int64_t>(start, 0, size);
    end = std::clamp<int64_t>(end, 0, size);
    range.count = end > start ? (end - start - 1) / step + 1 : 0;
  } else if (size > 0) {
    start = std::clamp<int64_t>(start, 0, size - 1);
    end = std::clamp<int64_t>(end, -1, size - 1);
    range.count = start > end ? (start - end - 1) / -step + 1 : 0;
  }
  range.start = range.count > 0 ? start : 0;
  if (range.count <= 1) range.step = 1;  // keeps stride products small whatever the file says
  return range;
}

// Lists in the order starts, ends, axes, steps; the last two may be empty.
Result<SliceParams> make_params(const std::array<SmallInts, 4>& lists, const Shape& in) {
  const auto& [starts, ends, axes, steps] = lists;
  if (ends.count != starts.count || (axes.count != 0 && axes.count != starts.count) ||
      (steps.count != 0 && steps.count != starts.count) || starts.count > in.rank()) {
    return Status(Code::kBadModel, "starts, ends, axes and steps have " + std::to_string(starts.count) + ", " +
                                       std::to_string(ends.count) + ", " + std::to_string(axes.count) + " and " +
                                       std::to_string(steps.count) + " elements for an input of shape " +
                                       in.to_string());
  }
  SliceParams params;
  for (int i = 0; i < in.rank(); ++i) params.ranges[static_cast<size_t>(i)].count = in[i];
  std::array<bool, kMaxRank> seen{};
  for (int i = 0; i < starts.count; ++i) {
    SPRUN_ASSIGN(const int axis, normalize_axis(axes.count > 0 ? axes[i] : i, in.rank()));
    const int64_t step = steps.count > 0 ? steps[i] : 1;
    if (step == 0) return Status(Code::kBadModel, "step 0 for axis " + std::to_string(axis));
    if (seen[static_cast<size_t>(axis)])
      return Status(Code::kBadModel, "axis " + std::to_string(axis) + " is given twice");
    seen[static_cast<size_t>(axis)] = true;
    params.ranges[static_cast<size_t>(axis)] = clamped_range(starts[i], ends[i], step, in[axis]);
  }
  return params;
}

template <class Ctx>
Result<SliceParams> read_params(const Ctx& ctx, const Shape& in) {
  std::array<SmallInts, 4> lists;
  constexpr std::string_view kNames[] = {"starts", "ends", "axes"};
  for (int i = 0; i < 4; ++i) {
    if (ctx.opset() < 10) {
      if (i == 3) continue;
      SPRUN_ASSIGN(lists[static_cast<size_t>(i)], small_ints(ctx.attrs().get_ints(kNames[i])));
    } else if (ctx.has_input(i + 1)) {
      SPRUN_ASSIGN(lists[static_cast<size_t>(i)], read_small_ints(ctx.input(i + 1)));
    } else if (i < 2) {
      return Status(Code::kBadModel, "starts or ends are missing");
    }
  }
  return make_params(lists, in);
}

Status infer_slice(InferContext& ctx) {
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    if (ctx.has_input(i) && !ctx.has_data(i)) return ctx.needs_data();
  }
  SPRUN_ASSIGN(const SliceParams params, at_node(ctx, read_params(ctx, ctx.shape(0))));
  Shape out = ctx.shape(0);
  for (int i = 0; i < out.rank(); ++i) out[i] = params.ranges[static_cast<size_t>(i)].count;
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

Status run_slice(RunContext& ctx) {
  const ConstTensorView& in = ctx.input(0);
  const TensorView& out = ctx.output(0);
  SPRUN_ASSIGN(const SliceParams params, at_node(ctx, read_params(ctx, in.shape)));
  if (out.num_elements() == 0) return {};
  const auto src_strides = row_major_strides(in.shape), dst_strides = row_major_strides(out.shape);
  kernels::StridedCopy copy;
  int64_t offset = 0;
  for (size_t i = 0; i < static_cast<size_t>(in.shape.rank()); ++i) {
    const Range& range = params.ranges[i];
    offset += range.start * src_strides[i];
    copy.add_axis(range.count, range.step * src_strides[i], dst_strides[i]);
  }
  const int64_t element_bytes = dtype_size(in.dtype);
  kernels::strided_copy(copy, element_bytes, static_cast<const char*>(in.data) + offset * element_bytes, out.data,
                        ctx.pool());
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "Slice", .inputs = {1, 5}, .infer = infer_slice, .run = run_slice},
};

}  // namespace

extern const std::span<const OpDef> k_slice_ops;
const std::span<const OpDef> k_slice_ops = kOps;

}  // namespace sprun::graph
