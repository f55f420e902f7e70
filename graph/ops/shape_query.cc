// Shape and Size: the only ops whose result depends on nothing but the shape of their input.
#include <algorithm>

#include "graph/ops/op.h"

namespace sprun::graph {
namespace {

struct AxisRange {
  int begin, end;
};

// Shape-15: axes [start, end) after adding the rank to negative values and clamping.
AxisRange shape_range(const AttrMap& attrs, int rank) {
  const auto clamp = [rank](int64_t axis) {
    return static_cast<int>(std::clamp<int64_t>(axis < 0 ? axis + rank : axis, 0, rank));
  };
  const int begin = clamp(attrs.get_int("start", 0));
  return {begin, std::max(begin, clamp(attrs.get_int("end", rank)))};
}

Status infer_shape(InferContext& ctx) {
  const AxisRange range = shape_range(ctx.attrs(), ctx.shape(0).rank());
  ctx.set_output(0, DType::kS64, {range.end - range.begin});
  return {};
}

Status run_shape(RunContext& ctx) {
  const Shape& shape = ctx.input(0).shape;
  const AxisRange range = shape_range(ctx.attrs(), shape.rank());
  std::copy(shape.dims().begin() + range.begin, shape.dims().begin() + range.end, ctx.output(0).as<int64_t>());
  return {};
}

Status infer_size(InferContext& ctx) {
  ctx.set_output(0, DType::kS64, Shape{});
  return {};
}

Status run_size(RunContext& ctx) {
  *ctx.output(0).as<int64_t>() = ctx.input(0).num_elements();
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "Shape", .infer = infer_shape, .run = run_shape, .flags = kShapeOnly},
    {.name = "Size", .infer = infer_size, .run = run_size, .flags = kShapeOnly},
};

}  // namespace

extern const std::span<const OpDef> k_shape_query_ops;
const std::span<const OpDef> k_shape_query_ops = kOps;

}  // namespace sprun::graph
