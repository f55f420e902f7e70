// sprun.RotateHalf: rotary embedding with tables as wide as a head, made by graph passes.
//
//   y[.., i]        = x[.., i] cos[.., i] - x[.., i + D/2] sin[.., i]                       i < D/2
//   y[.., i + D/2]  = x[.., i + D/2] cos[.., i + D/2] + x[.., i] sin[.., i + D/2]
//
// Inputs: x [.., D], f32, D even; cos and sin, f32, broadcast to x without growing it, their last axis is D.
#include <algorithm>

#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

Status infer_rotate(InferContext& ctx) {
  const Shape& x = ctx.shape(0);
  SPRUN_TRY(ctx.check(x.rank() >= 1 && x.back() % 2 == 0, "the last axis of " + x.to_string() + " is not even"));
  for (int i = 0; i < 3; ++i) SPRUN_TRY(ctx.check(ctx.dtype(i) == DType::kF32, "inputs must be float32"));
  for (int i = 1; i < 3; ++i) {
    const Shape& table = ctx.shape(i);
    bool fits = table.rank() >= 1 && table.rank() <= x.rank() && table.back() == x.back();
    for (int axis = 1; fits && axis < table.rank(); ++axis) {
      const int64_t size = table[table.rank() - 1 - axis];
      fits = size == 1 || size == x[x.rank() - 1 - axis];
    }
    SPRUN_TRY(ctx.check(fits, "table of shape " + table.to_string() + " does not fit " + x.to_string()));
  }
  ctx.set_output(0, DType::kF32, x);
  return {};
}

void rotate(const float* __restrict x, const float* __restrict cos, const float* __restrict sin, int64_t half,
            float* __restrict y) {
  for (int64_t i = 0; i < half; ++i) {
    const float low = x[i], high = x[half + i];
    y[i] = low * cos[i] - high * sin[i];
    y[half + i] = high * cos[half + i] + low * sin[half + i];
  }
}

// Where the row of a table begins for row `row` of x.
int64_t table_offset(const Shape& x, const std::array<int64_t, kMaxRank>& strides, int64_t row) {
  int64_t offset = 0;
  for (int axis = x.rank() - 2; axis >= 0; --axis) {
    offset += row % x[axis] * strides[static_cast<size_t>(axis)];
    row /= x[axis];
  }
  return offset;
}

Status run_rotate(RunContext& ctx) {
  const Shape& shape = ctx.input(0).shape;
  const int64_t dim = shape.back();
  if (ctx.input(0).num_elements() == 0) return {};
  const auto cos_strides = broadcast_strides(ctx.input(1).shape, shape);
  const auto sin_strides = broadcast_strides(ctx.input(2).shape, shape);
  const float *x = ctx.input(0).as<float>(), *cos = ctx.input(1).as<float>(), *sin = ctx.input(2).as<float>();
  float* y = ctx.output(0).as<float>();
  constexpr int64_t kElementsPerTask = 32 * 1024;
  ctx.pool().parallel_for(shape.num_elements() / dim, kElementsPerTask / dim + 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      rotate(x + row * dim, cos + table_offset(shape, cos_strides, row), sin + table_offset(shape, sin_strides, row),
             dim / 2, y + row * dim);
    }
  });
  return {};
}

constexpr OpDef kOps[] = {
    {.domain = "sprun", .name = "RotateHalf", .inputs = {3, 3}, .infer = infer_rotate, .run = run_rotate},
};

}  // namespace

extern const std::span<const OpDef> k_rotate_half_ops;
const std::span<const OpDef> k_rotate_half_ops = kOps;

}  // namespace sprun::graph
