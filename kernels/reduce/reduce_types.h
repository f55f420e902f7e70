// Function type and kernel table of the reduce family. Plain data: included by ISA files.
#pragma once

#include <cstdint>

namespace sprun::kernels {

// y[r] = reduction of the n elements at x + r * ld, r < rows. n >= 1, any alignment.
using ReduceRowsF32Fn = void(const float* x, int64_t rows, int64_t n, int64_t ld, float* y);

struct ReduceKernel {
  ReduceRowsF32Fn* sum;
  ReduceRowsF32Fn* sum_abs;
  ReduceRowsF32Fn* sum_squares;
  ReduceRowsF32Fn* max;  // NaN if any element is
  ReduceRowsF32Fn* min;  // NaN if any element is
};

}  // namespace sprun::kernels
