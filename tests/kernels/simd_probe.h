// Runs the functions of kernels/simd on arrays, one copy per ISA, so that a test can compare them.
#pragma once

#include <cstdint>

namespace sprun::kernels::simd_probe {

// y[i] = f(x[i]) for i < n.
using UnaryFn = void(const float* x, float* y, int64_t n);

struct Probe {
  UnaryFn *exp, *log, *tanh, *erf, *sigmoid, *silu, *gelu_erf, *gelu_erf_all, *gelu_erf_codes, *gelu_tanh, *quick_gelu;
  UnaryFn *round_even, *through_bf16, *through_f16;
  void (*load_store_partial)(const float* x, float* y, int64_t n);  // n <= lanes
  float (*reduce_add)(const float* x);                              // lanes elements
  float (*reduce_max)(const float* x);
  float (*reduce_min)(const float* x);
  void (*quantise)(const float* x, uint8_t* y, int64_t n);  // saturate(round(x))
  int64_t lanes;
};

extern const Probe kProbeSse2, kProbeAvx2, kProbeAvx512;

}  // namespace sprun::kernels::simd_probe
