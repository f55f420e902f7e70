// ArgMax and ArgMin: the position of the largest or smallest element along one axis.
#include "graph/ops/broadcast.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

Status infer_arg(InferContext& ctx) {
  const Shape& x = ctx.shape(0);
  auto axis = normalize_axis(ctx.attrs().get_int("axis", 0), x.rank());
  if (!axis.ok()) return ctx.error(axis.status().message());
  SPRUN_TRY(
      ctx.check(x[*axis] > 0 || x.num_elements(0, *axis) * x.num_elements(*axis + 1, x.rank()) == 0,
                "axis " + std::to_string(*axis) + " of " + x.to_string() +
                    " has no elements to choose from"));
  Shape out = x;
  out[*axis] = 1;
  if (ctx.attrs().get_int("keepdims", 1) == 0) out.erase(*axis);
  ctx.set_output(0, DType::kS64, out);
  return {};
}

// Does `a` replace the choice `b` that comes before it? NaN wins over numbers, as in NumPy.
template <bool kMax, class C>
bool beats(C a, C b, bool last) {
  if (a != a) return last || b == b;
  if (last) return kMax ? a >= b : a <= b;
  return kMax ? a > b : a < b;
}

// Rows [begin, end) of [outer, n, inner], where a row is one (outer, inner) pair.
template <bool kMax, class T>
void choose(const T* x, int64_t* y, int64_t n, int64_t inner, bool last, int64_t begin,
            int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const T* p = x + row / inner * n * inner + row % inner;
    auto best = load(*p);
    int64_t index = 0;
    for (int64_t i = 1; i < n; ++i) {
      const auto v = load(p[i * inner]);
      if (beats<kMax>(v, best, last)) {
        best = v;
        index = i;
      }
    }
    y[row] = index;
  }
}

template <bool kMax>
Status run_arg(RunContext& ctx) {
  const Shape& shape = ctx.input(0).shape;
  SPRUN_ASSIGN(const int axis, normalize_axis(ctx.attrs().get_int("axis", 0), shape.rank()));
  const bool last = ctx.attrs().get_int("select_last_index", 0) != 0;
  const int64_t n = shape[axis];
  const int64_t inner = shape.num_elements(axis + 1, shape.rank());
  const int64_t rows = ctx.output(0).num_elements();
  return dispatch_numeric(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = ctx.input(0).as<T>();
    auto* y = ctx.output(0).as<int64_t>();
    ctx.pool().parallel_for(
        rows, std::max<int64_t>(1, kCheapGrain / std::max<int64_t>(n, 1)),
        [&](int64_t begin, int64_t end, int) { choose<kMax>(x, y, n, inner, last, begin, end); });
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.name = "ArgMax", .infer = infer_arg, .run = run_arg<true>},
    {.name = "ArgMin", .infer = infer_arg, .run = run_arg<false>},
};

}  // namespace

extern const std::span<const OpDef> k_arg_reduce_ops;
const std::span<const OpDef> k_arg_reduce_ops = kOps;

}  // namespace sprun::graph
