// Where: elements of X where the condition holds, of Y elsewhere, with NumPy broadcasting of all
// three.
#include "graph/ops/broadcast.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

template <class T>
void where_row(const RowArgs& row) {
  const auto* cond = row.input<uint8_t>(0);
  const T* x = row.input<T>(1);
  const T* z = row.input<T>(2);
  T* y = row.output<T>();
  if (row.step[0] == 0) {
    const size_t chosen = *cond != 0 ? 1 : 2;
    if (row.step[chosen] != 0) {
      std::copy_n(row.input<T>(chosen), row.n, y);
    } else {
      std::fill_n(y, row.n, *row.input<T>(chosen));
    }
  } else if (row.step[1] != 0 && row.step[2] != 0) {
    for (int64_t i = 0; i < row.n; ++i) y[i] = cond[i] != 0 ? x[i] : z[i];
  } else if (row.step[1] != 0) {
    const T other = *z;
    for (int64_t i = 0; i < row.n; ++i) y[i] = cond[i] != 0 ? x[i] : other;
  } else {
    const T first = *x;
    for (int64_t i = 0; i < row.n; ++i) y[i] = cond[i] != 0 ? first : z[i * row.step[2]];
  }
}

Status infer_where(InferContext& ctx) {
  SPRUN_TRY(ctx.check(ctx.dtype(0) == DType::kBool,
                      "condition is " + std::string(dtype_name(ctx.dtype(0))) + ", expected bool"));
  SPRUN_TRY(ctx.check(ctx.dtype(1) == ctx.dtype(2),
                      "X and Y have different types: " + std::string(dtype_name(ctx.dtype(1))) +
                          " and " + std::string(dtype_name(ctx.dtype(2)))));
  auto shape = broadcast_shapes(ctx.shape(1), ctx.shape(2));
  if (shape.ok()) shape = broadcast_shapes(ctx.shape(0), *shape);
  if (!shape.ok()) return ctx.error(shape.status().message());
  ctx.set_output(0, ctx.dtype(1), *shape);
  return {};
}

Status run_where(RunContext& ctx) {
  const ConstTensorView& cond = ctx.input(0);
  const ConstTensorView& x = ctx.input(1);
  const ConstTensorView& z = ctx.input(2);
  const TensorView& y = ctx.output(0);
  return dispatch_size(ctx, y.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    run_rows(ctx.pool(), make_broadcast_loop({&cond.shape, &x.shape, &z.shape}, y.shape),
             {.in = {cond.data, x.data, z.data},
              .in_size = {1, sizeof(T), sizeof(T)},
              .out = y.data,
              .out_size = sizeof(T),
              .fn = where_row<T>});
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "Where", .inputs = {3, 3}, .infer = infer_where, .run = run_where}};

}  // namespace

extern const std::span<const OpDef> k_where_ops;
const std::span<const OpDef> k_where_ops = kOps;

}  // namespace sprun::graph
