// Det (ai.onnx 11, 22): determinant of square matrices [.., n, n], by elimination with row pivots in double.
#include <cmath>
#include <utility>
#include <vector>

#include "graph/ops/op.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

Status infer_det(InferContext& ctx) {
  const Shape& x = ctx.shape(0);
  SPRUN_TRY(
      ctx.check(x.rank() >= 2 && x[x.rank() - 1] == x[x.rank() - 2], "expected square matrices, got " + x.to_string()));
  Shape out = x;
  out.erase(out.rank() - 1);
  out.erase(out.rank() - 1);
  ctx.set_output(0, ctx.dtype(0), out);
  return {};
}

// Destroys `a` [n, n].
double determinant(double* a, int64_t n) {
  double det = 1;
  for (int64_t c = 0; c < n; ++c) {
    int64_t pivot = c;
    for (int64_t r = c + 1; r < n; ++r) {
      if (std::fabs(a[r * n + c]) > std::fabs(a[pivot * n + c])) pivot = r;
    }
    if (a[pivot * n + c] == 0) return 0;
    if (pivot != c) {
      for (int64_t k = c; k < n; ++k) std::swap(a[pivot * n + k], a[c * n + k]);
      det = -det;
    }
    det *= a[c * n + c];
    for (int64_t r = c + 1; r < n; ++r) {
      const double factor = a[r * n + c] / a[c * n + c];
      for (int64_t k = c; k < n; ++k) a[r * n + k] -= factor * a[c * n + k];
    }
  }
  return det;
}

Status run_det(RunContext& ctx) {
  const int64_t n = ctx.input(0).shape.back(), matrices = ctx.output(0).num_elements();
  return dispatch_real(ctx, ctx.input(0).dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    std::vector<double> work(static_cast<size_t>(n * n));
    for (int64_t i = 0; i < matrices; ++i) {
      const T* x = ctx.input(0).as<T>() + i * n * n;
      for (int64_t e = 0; e < n * n; ++e) work[static_cast<size_t>(e)] = static_cast<double>(load(x[e]));
      ctx.output(0).as<T>()[i] = store<T>(static_cast<ComputeType<T>>(determinant(work.data(), n)));
    }
    return Status();
  });
}

constexpr OpDef kOps[] = {{.name = "Det", .since = 11, .infer = infer_det, .run = run_det}};

}  // namespace

extern const std::span<const OpDef> k_det_ops;
const std::span<const OpDef> k_det_ops = kOps;

}  // namespace sprun::graph
