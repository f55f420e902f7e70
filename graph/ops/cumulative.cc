// CumSum and CumProd along one axis, inclusive or exclusive, forwards or backwards.
#include "graph/ops/broadcast.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

Status infer_cumulative(InferContext& ctx) {
  SPRUN_TRY(
      ctx.check(ctx.dtype(1) == DType::kS32 || ctx.dtype(1) == DType::kS64,
                "axis is " + std::string(dtype_name(ctx.dtype(1))) + ", expected int32 or int64"));
  return infer_same_as_input(ctx);
}

// Floats accumulate in double, integers wrap around in 64 bits.
template <class T>
using Acc = std::conditional_t<std::is_integral_v<T>, uint64_t, double>;

struct Sum {
  static constexpr int kNeutral = 0;
  template <class A>
  static A combine(A a, A b) {
    return a + b;
  }
};

struct Product {
  static constexpr int kNeutral = 1;
  template <class A>
  static A combine(A a, A b) {
    return a * b;
  }
};

// One line of n elements, `step` apart (negative: backwards). y may be x.
template <class Op, class T>
void scan_line(const T* x, T* y, int64_t n, int64_t step, bool exclusive) {
  auto acc = static_cast<Acc<T>>(Op::kNeutral);
  for (int64_t i = 0; i < n; ++i) {
    const auto next = Op::combine(acc, static_cast<Acc<T>>(load(x[i * step])));
    y[i * step] = store<T>(exclusive ? acc : next);
    acc = next;
  }
}

template <class Op>
Status run_cumulative(RunContext& ctx) {
  const Shape& shape = ctx.input(0).shape;
  SPRUN_ASSIGN(const int64_t given, read_scalar_int(ctx.input(1)));
  auto axis = normalize_axis(given, shape.rank());
  if (!axis.ok()) return ctx.error(axis.status().message());
  const bool exclusive = ctx.attrs().get_int("exclusive", 0) != 0;
  const bool reverse = ctx.attrs().get_int("reverse", 0) != 0;
  const int64_t n = shape[*axis];
  if (shape.num_elements() == 0) return {};
  const int64_t inner = shape.num_elements(*axis + 1, shape.rank());
  const int64_t lines = shape.num_elements() / n;
  return dispatch_numeric(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = ctx.input(0).as<T>();
    T* y = ctx.output(0).as<T>();
    ctx.pool().parallel_for(
        lines, std::max<int64_t>(1, kCheapGrain / n), [&](int64_t begin, int64_t end, int) {
          for (int64_t line = begin; line < end; ++line) {
            const int64_t start =
                line / inner * n * inner + line % inner + (reverse ? (n - 1) * inner : 0);
            scan_line<Op>(x + start, y + start, n, reverse ? -inner : inner, exclusive);
          }
        });
    return Status();
  });
}

constexpr OpDef cumulative_op(std::string_view name, Status (*run)(RunContext&)) {
  return {.name = name, .inputs = {2, 2}, .infer = infer_cumulative, .run = run, .flags = kInPlace};
}

constexpr OpDef kOps[] = {
    cumulative_op("CumSum", run_cumulative<Sum>),
    cumulative_op("CumProd", run_cumulative<Product>),
};

}  // namespace

extern const std::span<const OpDef> k_cumulative_ops;
const std::span<const OpDef> k_cumulative_ops = kOps;

}  // namespace sprun::graph
