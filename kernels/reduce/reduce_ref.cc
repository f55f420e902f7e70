// Reference of the reduce family, in double.
#include <cmath>

#include "kernels/reduce/reduce_types.h"

namespace sprun::kernels {
namespace {

enum class Kind { kSum, kSumAbs, kSumSquares, kMax, kMin };

template <Kind kKind>
double step(double acc, double x) {
  switch (kKind) {
    case Kind::kSum:
      return acc + x;
    case Kind::kSumAbs:
      return acc + std::abs(x);
    case Kind::kSumSquares:
      return acc + x * x;
    case Kind::kMax:
      return x > acc || std::isnan(x) ? x : acc;
    case Kind::kMin:
      return x < acc || std::isnan(x) ? x : acc;
  }
  return acc;
}

template <Kind kKind>
void rows_ref(const float* x, int64_t rows, int64_t n, int64_t ld, float* y) {
  constexpr double kStart = kKind == Kind::kMax ? -INFINITY : kKind == Kind::kMin ? INFINITY : 0.0;
  for (int64_t r = 0; r < rows; ++r) {
    double acc = kStart;
    for (int64_t i = 0; i < n; ++i) acc = step<kKind>(acc, x[r * ld + i]);
    y[r] = static_cast<float>(acc);
  }
}

}  // namespace

extern constinit const ReduceKernel reduce_f32_ref = {rows_ref<Kind::kSum>, rows_ref<Kind::kSumAbs>,
                                                      rows_ref<Kind::kSumSquares>,
                                                      rows_ref<Kind::kMax>, rows_ref<Kind::kMin>};

}  // namespace sprun::kernels
