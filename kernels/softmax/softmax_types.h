// Function type and kernel table of the softmax family. Plain data: included by ISA files.
#pragma once

#include <cstdint>

namespace sprun::kernels {

// Rows of length n >= 1 at x + r * ld, r < rows, to y + r * ld (ld >= n elements). y may be x.
using SoftmaxF32Fn = void(const float* x, float* y, int64_t rows, int64_t n, int64_t ld);

struct SoftmaxKernel {
  SoftmaxF32Fn* softmax;      // e^(x - max x) / sum e^(x - max x)
  SoftmaxF32Fn* log_softmax;  // x - max x - log(sum e^(x - max x))
};

}  // namespace sprun::kernels
