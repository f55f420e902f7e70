// Argument struct and kernel table of row normalisation. Plain data: ISA files include it.
//
//   v[c] = x[r, c] + residual[r mod residual_rows, c] + bias[c]
//   layer norm:  y[r, c] = (v[c] - mean) * inv_std * gamma[c] + beta[c]
//                mean = sum v / n, inv_std = 1 / sqrt(sum (v - mean)^2 / n + epsilon)
//   RMS norm:    the same with mean = 0
// f32, rows of n contiguous elements, any alignment. y and sum may be x or (without broadcast)
// residual: each element is read before it is written. y and sum are different buffers. Numeric:
// kReassociated; the variance takes a second pass, so that a large mean costs no accuracy. Regime:
// bandwidth-bound. Errors: none. Threads: a call runs on the calling thread. Source: Ba et al.
// 2016, Zhang and Sennrich 2019.
#pragma once

#include <cstdint>

namespace sprun::kernels {

struct RowNormArgs {
  const float* x = nullptr;         // [rows, n]
  const float* residual = nullptr;  // [residual_rows, n]; null = 0
  const float* bias = nullptr;      // [n]; null = 0
  const float* gamma = nullptr;     // [n]; null = 1
  const float* beta = nullptr;      // [n]; null = 0
  float* y = nullptr;               // [rows, n]
  float* sum = nullptr;             // [rows, n] receives v; may be null
  float* mean = nullptr;            // [rows]; may be null
  float* inv_std = nullptr;         // [rows]; may be null
  int64_t n = 0;
  int64_t residual_rows = 1;
  float epsilon = 0;
};

struct RowNormKernel {
  // Rows [begin, end).
  void (*layer_norm)(const RowNormArgs& args, int64_t begin, int64_t end);
  void (*rms_norm)(const RowNormArgs& args, int64_t begin, int64_t end);
};

}  // namespace sprun::kernels
