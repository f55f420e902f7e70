// RotaryEmbedding of ai.onnx (23) and com.microsoft.
#include <string>

#include "graph/ops/attention_util.h"
#include "graph/ops/op_util.h"
#include "kernels/rope/rope.h"

namespace sprun::graph {
namespace {

using kernels::RopeArgs;

struct InputMap {
  int cos, sin, positions;
};
constexpr InputMap kOnnxInputs{1, 2, 3};
constexpr InputMap kContribInputs{2, 3, 1};

struct Problem {
  RopeArgs args;
  int64_t table_rows = 0;
  bool has_positions = false, single_offset = false;
};

template <class Ctx>
Status set_sizes(const Ctx& ctx, const InputMap& map, RopeArgs& a) {
  const Node& node = ctx.node();
  const Shape &x = ctx.input(0).shape, &cos = ctx.input(map.cos).shape;
  a.batch = x[0];
  a.rotary_dim = ctx.attrs().get_int("rotary_embedding_dim", 0);
  if (x.rank() == 4) {
    a.heads = x[1], a.rows = x[2], a.dim = x[3];
  } else {
    a.rows = x[1];
    a.heads = ctx.attrs().get_int("num_heads", 0);
    // com.microsoft: without num_heads the tables tell the head size.
    if (a.heads == 0 && map.cos == kContribInputs.cos && cos.rank() > 0 && cos.back() > 0)
      a.heads = x[2] / (2 * cos.back());
    if (a.heads < 1 || x[2] % a.heads != 0) {
      return op_error(node, "hidden size " + std::to_string(x[2]) + " does not split into " + std::to_string(a.heads) +
                                " heads");
    }
    a.dim = x[2] / a.heads;
  }
  if (a.rotary_dim == 0) a.rotary_dim = a.dim;
  if (a.rotary_dim < 0 || a.rotary_dim > a.dim || a.rotary_dim % 2 != 0) {
    return op_error(node, "rotary dimension " + std::to_string(a.rotary_dim) +
                              " must be even and at most the head size " + std::to_string(a.dim));
  }
  return {};
}

template <class Ctx>
Status check_tables(const Ctx& ctx, const InputMap& map, Problem& p) {
  const Node& node = ctx.node();
  RopeArgs& a = p.args;
  const ConstTensorView &cos = ctx.input(map.cos), &sin = ctx.input(map.sin);
  p.has_positions = ctx.has_input(map.positions);
  const bool per_row = cos.shape.rank() == 3;
  if (cos.shape.rank() != (p.has_positions ? 2 : 3) || !(cos.shape == sin.shape) ||
      cos.shape.back() != a.rotary_dim / 2 || (per_row && (cos.shape[0] != a.batch || cos.shape[1] != a.rows)) ||
      cos.dtype != a.dtype || sin.dtype != a.dtype) {
    return op_error(node, "cos " + cos.shape.to_string() + " and sin " + sin.shape.to_string() +
                              " tables do not fit input " + ctx.input(0).shape.to_string() + " with rotary dimension " +
                              std::to_string(a.rotary_dim));
  }
  p.table_rows = per_row ? 0 : cos.shape[0];
  if (!p.has_positions) return {};
  const ConstTensorView& ids = ctx.input(map.positions);
  p.single_offset = map.positions == kContribInputs.positions && ids.shape.rank() < 2;
  const bool fits = p.single_offset ? ids.shape.num_elements() == 1 : ids.shape == Shape{a.batch, a.rows};
  if (!fits || ids.dtype != DType::kS64) {
    return op_error(node, "position_ids must be int64 of shape " + Shape{a.batch, a.rows}.to_string() + ", got " +
                              ids.shape.to_string());
  }
  return {};
}

template <class Ctx>
Status describe(const Ctx& ctx, const InputMap& map, Problem& p) {
  const Shape& x = ctx.input(0).shape;
  RopeArgs& a = p.args;
  a.dtype = ctx.input(0).dtype;
  if (!is_float(a.dtype) || (x.rank() != 3 && x.rank() != 4) || !ctx.has_input(map.cos) || !ctx.has_input(map.sin)) {
    return op_error(ctx.node(), "expected a float input of rank 3 or 4 with cos and sin tables, got " + x.to_string());
  }
  if (ctx.attrs().get_int("is_packed_batching", 0) != 0)
    return op_error(ctx.node(), "is_packed_batching is not supported");
  SPRUN_TRY(set_sizes(ctx, map, a));
  SPRUN_TRY(check_tables(ctx, map, p));
  a.interleaved = ctx.attrs().get_int("interleaved", 0) != 0;
  a.x_strides = a.y_strides = strides_by_rank(x, a.heads, a.rows, a.dim);
  return {};
}

Status infer(InferContext& ctx, const InputMap& map) {
  Problem p;
  SPRUN_TRY(describe(ctx, map, p));
  ctx.set_output(0, ctx.dtype(0), ctx.shape(0));
  return {};
}

Status prepare(PrepareContext& ctx, const InputMap& map) {
  Problem p;
  SPRUN_TRY(describe(ctx, map, p));
  auto state = std::make_unique<ScratchState>();
  if (p.has_positions) state->scratch_bytes = p.args.batch * p.args.rows * static_cast<int64_t>(sizeof(int64_t));
  ctx.scratch_bytes = state->scratch_bytes;
  ctx.state = std::move(state);
  ctx.regime = "bandwidth-bound";
  return {};
}

// Table rows of every (batch, row), checked.
Status read_positions(const RunContext& ctx, const InputMap& map, const Problem& p, int64_t* rows) {
  const auto* ids = ctx.input(map.positions).as<int64_t>();
  const int64_t n = p.args.batch * p.args.rows;
  for (int64_t t = 0; t < n; ++t) {
    const int64_t base = ids[p.single_offset ? 0 : t];
    const int64_t step = p.single_offset ? t % p.args.rows : 0;
    if (base < 0 || base > p.table_rows - 1 - step) {
      return ctx.error("position " + std::to_string(base) + " + " + std::to_string(step) +
                       " is outside the tables of " + std::to_string(p.table_rows) + " rows");
    }
    rows[t] = base + step;
  }
  return {};
}

Status run(RunContext& ctx, const InputMap& map) {
  Problem p;
  SPRUN_TRY(describe(ctx, map, p));
  RopeArgs& a = p.args;
  ScratchHolder holder;
  if (p.has_positions) {
    SPRUN_ASSIGN(void* base, holder.get(ctx, a.batch * a.rows * static_cast<int64_t>(sizeof(int64_t))));
    SPRUN_TRY(read_positions(ctx, map, p, static_cast<int64_t*>(base)));
    a.positions = static_cast<const int64_t*>(base);
  }
  a.x = ctx.input(0).data;
  a.y = ctx.output(0).data;
  a.cos = ctx.input(map.cos).data;
  a.sin = ctx.input(map.sin).data;
  kernels::rope(a, ctx.pool());
  return {};
}

Status infer_onnx(InferContext& ctx) { return infer(ctx, kOnnxInputs); }
Status prepare_onnx(PrepareContext& ctx) { return prepare(ctx, kOnnxInputs); }
Status run_onnx(RunContext& ctx) { return run(ctx, kOnnxInputs); }
Status infer_contrib(InferContext& ctx) { return infer(ctx, kContribInputs); }
Status prepare_contrib(PrepareContext& ctx) { return prepare(ctx, kContribInputs); }
Status run_contrib(RunContext& ctx) { return run(ctx, kContribInputs); }

constexpr OpDef kOps[] = {
    {.name = "RotaryEmbedding", .since = 23, .inputs = {3, 4}, .infer = infer_onnx, .run = run_onnx,
     .prepare = prepare_onnx, .flags = kInPlace},
    {.domain = "com.microsoft", .name = "RotaryEmbedding", .inputs = {4, 4}, .infer = infer_contrib,
     .run = run_contrib, .prepare = prepare_contrib, .flags = kInPlace},
};

}  // namespace

extern const std::span<const OpDef> k_rotary_embedding_ops;
const std::span<const OpDef> k_rotary_embedding_ops = kOps;

}  // namespace sprun::graph
