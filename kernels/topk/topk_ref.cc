// Scalar reference of the top-k family.
#include "kernels/topk/topk_types.h"

namespace sprun::kernels {
namespace {

void moments(const float* x, int64_t n, double* sum, double* sum_squares) {
  *sum = 0;
  *sum_squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double v = static_cast<double>(x[i]);
    *sum += v;
    *sum_squares += v * v;
  }
}

int64_t select_above(const float* x, int64_t n, float threshold, int32_t base, int32_t* ids,
                     float* values) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (!(x[i] > threshold)) continue;
    ids[count] = base + static_cast<int32_t>(i);
    if (values != nullptr) values[count] = x[i] - threshold;
    ++count;
  }
  return count;
}

int64_t select_non_zero(const float* x, int64_t ldx, int64_t rows, int64_t n, int32_t base,
                        int32_t* ids) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    bool any = false;
    for (int64_t r = 0; r < rows; ++r) any = any || x[r * ldx + i] != 0.0F;
    if (any) ids[count++] = base + static_cast<int32_t>(i);
  }
  return count;
}

}  // namespace

extern constinit const TopKKernel topk_ref = {moments, select_above, select_non_zero};

}  // namespace sprun::kernels
