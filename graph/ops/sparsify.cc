// Ops that make exact zeros in rows, each one node of what exporters spell out in several (formulas: select_rows.h):
//   sprun.StatTopK    X [.., n]; attributes z, ddof (0)
//   sprun.Threshold   X [.., n], t (type of X, or float32): one value or [n]; attributes absolute (0), inclusive (0),
//                     shift (0)
//   sprun.TopKSelect  X [.., n]; attributes k, absolute (0), ties (0)
// Element types: all floats; 16-bit floats compute in float32. Y has the type and shape of X.
#include <vector>

#include "graph/ops/op_util.h"
#include "graph/ops/select_rows.h"

namespace sprun::graph {
namespace {

std::string_view kind_of(const Node& node) {
  if (node.op_type == "StatTopK") return "stat_top_k";
  return node.op_type == "Threshold" ? "threshold" : "top_k";
}

Status infer_select(InferContext& ctx) {
  const auto selection = selection_of(kind_of(ctx.node()), ctx.attrs());
  if (!selection.ok()) return ctx.error(selection.status().message());
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)) && ctx.shape(0).rank() >= 1, "X must be floats with at least one axis"));
  if (selection->kind == SelectKind::kThreshold) {
    const int64_t count = ctx.has_input(1) ? ctx.input(1).num_elements() : 0;
    const bool fits = ctx.has_input(1) && (ctx.dtype(1) == ctx.dtype(0) || ctx.dtype(1) == DType::kF32);
    SPRUN_TRY(ctx.check(fits && (count == 1 || count == ctx.shape(0).back()),
                        "t must have the type of X and one value or one for each column"));
  }
  ctx.set_output(0, ctx.dtype(0), ctx.shape(0));
  return {};
}

int64_t row_bytes(const ConstTensorView& x) { return x.shape.back() * static_cast<int64_t>(sizeof(double)); }

// Scratch for each worker: keys, a widened row, and widened thresholds.
Status prepare_select(PrepareContext& ctx) {
  ctx.scratch_bytes = 3 * row_bytes(ctx.input(0)) * ctx.max_threads();
  ctx.regime = "bandwidth-bound";
  return {};
}

template <class T>
void select_rows(RunContext& ctx, const Selection& selection, int64_t begin, int64_t end, int worker) {
  using C = ComputeType<T>;
  const int64_t n = ctx.input(0).shape.back();
  char* memory = static_cast<char*>(ctx.scratch()) + 3 * row_bytes(ctx.input(0)) * worker;
  C* keys = reinterpret_cast<C*>(memory);
  C* row = reinterpret_cast<C*>(memory + row_bytes(ctx.input(0)));
  C* wide = reinterpret_cast<C*>(memory + 2 * row_bytes(ctx.input(0)));
  Thresholds<C> thresholds;
  if (selection.kind == SelectKind::kThreshold) {
    const int64_t count = ctx.input(1).num_elements();
    const bool own_type = ctx.input(1).dtype == ctx.input(0).dtype;
    for (int64_t i = 0; i < count; ++i) {
      wide[i] = own_type ? load(ctx.input(1).as<T>()[i]) : static_cast<C>(ctx.input(1).as<float>()[i]);
    }
    thresholds = {wide, count == 1 ? 0 : 1};
  }
  for (int64_t r = begin; r < end; ++r) {
    const T* x = ctx.input(0).as<T>() + r * n;
    T* y = ctx.output(0).as<T>() + r * n;
    if constexpr (std::is_same_v<T, C>) {
      select_row(selection, thresholds, x, n, y, keys);
    } else {
      for (int64_t i = 0; i < n; ++i) row[i] = load(x[i]);
      select_row(selection, thresholds, row, n, row, keys);
      for (int64_t i = 0; i < n; ++i) y[i] = store<T>(row[i]);
    }
  }
}

Status run_select(RunContext& ctx) {
  SPRUN_ASSIGN(const Selection selection, selection_of(kind_of(ctx.node()), ctx.attrs()));
  const int64_t n = ctx.input(0).shape.back();
  if (ctx.input(0).num_elements() == 0) return {};
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ctx.pool().parallel_for(ctx.input(0).num_elements() / n, 16384 / n + 1, [&](int64_t begin, int64_t end, int worker) {
      select_rows<T>(ctx, selection, begin, end, worker);
    });
    return Status();
  });
}

constexpr OpDef select_op(std::string_view name, Arity inputs) {
  return {.domain = "sprun",
          .name = name,
          .inputs = inputs,
          .infer = infer_select,
          .run = run_select,
          .prepare = prepare_select,
          .flags = kInPlace};
}

constexpr OpDef kOps[] = {
    select_op("StatTopK", {1, 1}),
    select_op("Threshold", {2, 2}),
    select_op("TopKSelect", {1, 1}),
};

}  // namespace

extern const std::span<const OpDef> k_sparsify_ops;
const std::span<const OpDef> k_sparsify_ops = kOps;

}  // namespace sprun::graph
