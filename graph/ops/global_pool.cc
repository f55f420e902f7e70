// GlobalAveragePool, GlobalMaxPool and GlobalLpPool: one value per [batch, channel] plane.
#include <algorithm>
#include <cmath>

#include "graph/ops/op_util.h"

namespace sprun::graph {

namespace {

Status infer(InferContext& ctx) {
  const Shape& x = ctx.shape(0);
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(0)), "input must be a float type"));
  SPRUN_TRY(
      ctx.check(x.rank() >= 2, "input must have at least 2 axes, got shape " + x.to_string()));
  SPRUN_TRY(ctx.check(ctx.attrs().get_int("p", 2) > 0, "p must be positive"));
  Shape y = x;
  for (int i = 2; i < y.rank(); ++i) y[i] = 1;
  ctx.set_output(0, ctx.dtype(0), y);
  return {};
}

// Sixteen interleaved partial results keep vector units busy and rounding errors small.
constexpr int64_t kLanes = 16;

// combine(partial, x) over the plane, then combine over the partials.
template <class T, class Combine>
ComputeType<T> fold(const T* x, int64_t n, ComputeType<T> start, const Combine& combine) {
  using C = ComputeType<T>;
  C partial[kLanes];
  std::fill_n(partial, kLanes, start);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t k = 0; k < kLanes; ++k) partial[k] = combine(partial[k], load(x[i + k]));
  }
  for (int64_t k = 0; i + k < n; ++k) partial[k] = combine(partial[k], load(x[i + k]));
  C result = partial[0];
  for (int64_t k = 1; k < kLanes; ++k) result = combine(result, partial[k]);
  return result;
}

// plane(x, n) gives the value of one plane of n elements.
template <class Plane>
Status run_planes(RunContext& ctx, const Plane& plane) {
  const Shape& shape = ctx.input(0).shape;
  const int64_t n = shape.num_elements(2, shape.rank());
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = ctx.input(0).as<T>();
    T* y = ctx.output(0).as<T>();
    const int64_t grain = std::max<int64_t>(1, 32768 / std::max<int64_t>(n, 1));
    ctx.pool().parallel_for(shape[0] * shape[1], grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) y[i] = store<T>(plane(x + i * n, n));
    });
    return Status();
  });
}

Status run_average(RunContext& ctx) {
  return run_planes(ctx, [](const auto* x, int64_t n) {
    using C = decltype(load(*x));
    const C sum = fold(x, n, C{0}, [](C a, C b) { return a + b; });
    return n == 0 ? C{0} : sum / static_cast<C>(n);
  });
}

Status run_max(RunContext& ctx) {
  return run_planes(ctx, [](const auto* x, int64_t n) {
    using C = decltype(load(*x));
    return fold(x, n, -std::numeric_limits<C>::infinity(), [](C a, C b) { return a > b ? a : b; });
  });
}

Status run_lp(RunContext& ctx) {
  const double p = static_cast<double>(ctx.attrs().get_int("p", 2));
  return run_planes(ctx, [p](const auto* x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::pow(std::abs(static_cast<double>(load(x[i]))), p);
    return static_cast<decltype(load(*x))>(std::pow(sum, 1.0 / p));
  });
}

constexpr OpDef kOps[] = {
    {.name = "GlobalAveragePool", .infer = infer, .run = run_average},
    {.name = "GlobalLpPool", .since = 2, .infer = infer, .run = run_lp},
    {.name = "GlobalMaxPool", .infer = infer, .run = run_max},
};

}  // namespace

extern const std::span<const OpDef> k_global_pool_ops;
const std::span<const OpDef> k_global_pool_ops = kOps;

}  // namespace sprun::graph
