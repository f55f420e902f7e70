// Max, Min, Sum and Mean of any number of inputs, with NumPy broadcasting.
#include "graph/ops/elementwise.h"

namespace sprun::graph {
namespace {

// NaN wins, as in numpy.maximum.
struct MaxOp {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      return a > b || a != a ? a : b;
    } else {
      return a > b ? a : b;
    }
  }
};

struct MinOp {
  template <class T>
  static T apply(T a, T b) {
    if constexpr (std::is_floating_point_v<T>) {
      return a < b || a != a ? a : b;
    } else {
      return a < b ? a : b;
    }
  }
};

struct SumOp {
  template <class T>
  static T apply(T a, T b) {
    return static_cast<T>(a + b);
  }
};

Status infer_variadic(InferContext& ctx) {
  Shape shape = ctx.shape(0);
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    SPRUN_TRY(ctx.check(ctx.has_input(i), "input " + std::to_string(i) + " is missing"));
    SPRUN_TRY(ctx.check(ctx.dtype(i) == ctx.dtype(0),
                        "input " + std::to_string(i) + " is of type " +
                            std::string(dtype_name(ctx.dtype(i))) + ", expected " +
                            std::string(dtype_name(ctx.dtype(0)))));
    auto joined = broadcast_shapes(shape, ctx.shape(i));
    if (!joined.ok()) return ctx.error(joined.status().message());
    shape = *joined;
  }
  ctx.set_output(0, ctx.dtype(0), shape);
  return {};
}

template <class T>
using ComputeIn = std::conditional_t<std::is_same_v<ComputeType<T>, T>, T, float>;

// A row of any element type by way of the type it computes in.
template <class T, class Op>
struct StoredOp {
  static T apply(T a, T b) { return store<T>(Op::template apply<ComputeIn<T>>(load(a), load(b))); }
};

// y = x broadcast to y's shape.
template <class T>
void copy_row(const RowArgs& row) {
  if (row.step[0] != 0) {
    std::copy_n(row.input<T>(0), row.n, row.output<T>());
  } else {
    std::fill_n(row.output<T>(), row.n, *row.input<T>(0));
  }
}

template <class Op, class T>
void fold_inputs(RunContext& ctx) {
  const TensorView& y = ctx.output(0);
  const auto pass = [&](const ConstTensorView& a, const ConstTensorView& b, RowFn* fn) {
    run_rows(ctx.pool(), make_broadcast_loop({&a.shape, &b.shape}, y.shape),
             {.in = {a.data, b.data},
              .in_size = {sizeof(T), sizeof(T)},
              .out = y.data,
              .out_size = sizeof(T),
              .fn = fn});
  };
  if (ctx.num_inputs() == 1) return pass(ctx.input(0), ctx.input(0), copy_row<T>);
  pass(ctx.input(0), ctx.input(1), binary_row<T, T, StoredOp<T, Op>>);
  for (int i = 2; i < ctx.num_inputs(); ++i)
    pass(y, ctx.input(i), binary_row<T, T, StoredOp<T, Op>>);
}

template <class Op>
Status run_numeric(RunContext& ctx) {
  return dispatch_numeric(ctx, ctx.input(0).dtype, [&](auto tag) {
    fold_inputs<Op, typename decltype(tag)::type>(ctx);
    return Status();
  });
}

Status run_sum(RunContext& ctx) {
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    fold_inputs<SumOp, typename decltype(tag)::type>(ctx);
    return Status();
  });
}

Status run_mean(RunContext& ctx) {
  SPRUN_TRY(run_sum(ctx));
  return dispatch_real(ctx, ctx.output(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* y = ctx.output(0).as<T>();
    const auto count = static_cast<ComputeType<T>>(ctx.num_inputs());
    ctx.pool().parallel_for(ctx.output(0).num_elements(), kCheapGrain,
                            [&](int64_t begin, int64_t end, int) {
                              for (int64_t i = begin; i < end; ++i)
                                y[i] = store<T>(load(y[i]) / count);
                            });
    return Status();
  });
}

constexpr OpDef variadic_op(std::string_view name, Status (*run)(RunContext&)) {
  return {.name = name, .inputs = {1, kVariadic}, .infer = infer_variadic, .run = run};
}

constexpr OpDef kOps[] = {
    variadic_op("Max", run_numeric<MaxOp>),
    variadic_op("Min", run_numeric<MinOp>),
    variadic_op("Sum", run_sum),
    variadic_op("Mean", run_mean),
};

}  // namespace

extern const std::span<const OpDef> k_variadic_ops;
const std::span<const OpDef> k_variadic_ops = kOps;

}  // namespace sprun::graph
