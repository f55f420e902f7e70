// Reference of the softmax family, in double.
#include <cmath>

#include "kernels/softmax/softmax_types.h"

namespace sprun::kernels {
namespace {

struct RowStats {
  double max, sum;  // sum of e^(x - max)
};

RowStats row_stats(const float* x, int64_t n) {
  double max = x[0];
  for (int64_t i = 1; i < n; ++i) max = x[i] > max ? x[i] : max;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - max);
  return {max, sum};
}

void softmax_ref(const float* x, float* y, int64_t rows, int64_t n, int64_t ld) {
  for (int64_t r = 0; r < rows; ++r) {
    const RowStats stats = row_stats(x + r * ld, n);
    for (int64_t i = r * ld; i < r * ld + n; ++i)
      y[i] = static_cast<float>(std::exp(x[i] - stats.max) / stats.sum);
  }
}

void log_softmax_ref(const float* x, float* y, int64_t rows, int64_t n, int64_t ld) {
  for (int64_t r = 0; r < rows; ++r) {
    const RowStats stats = row_stats(x + r * ld, n);
    const double shift = stats.max + std::log(stats.sum);
    for (int64_t i = r * ld; i < r * ld + n; ++i) y[i] = static_cast<float>(x[i] - shift);
  }
}

}  // namespace

extern constinit const SoftmaxKernel softmax_f32_ref = {softmax_ref, log_softmax_ref};

}  // namespace sprun::kernels
