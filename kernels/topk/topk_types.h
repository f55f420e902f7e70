// Kernel table of the top-k family. Plain data: ISA files include it.
#pragma once

#include <cstdint>

namespace sprun::kernels {

// Lists of indices are written a vector at a time: they need room for this many more elements.
inline constexpr int64_t kIndexSlack = 16;

struct TopKKernel {
  // *sum = sum of x[0, n), *sum_squares = sum of x[i]^2, both in double.
  void (*moments)(const float* x, int64_t n, double* sum, double* sum_squares);
  // The i in [0, n) with x[i] > threshold, ascending: base + i to ids and, where `values` is not
  // null, x[i] - threshold to values. Returns how many. NaN is not above anything.
  int64_t (*select_above)(const float* x, int64_t n, float threshold, int32_t base, int32_t* ids,
                          float* values);
  // The i for which some row r < rows has x[r * ldx + i] != 0, ascending: base + i to ids.
  int64_t (*select_non_zero)(const float* x, int64_t ldx, int64_t rows, int64_t n, int32_t base,
                             int32_t* ids);
};

}  // namespace sprun::kernels
