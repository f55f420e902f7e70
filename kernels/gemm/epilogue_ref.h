// Epilogues of the product references, one element at a time.
#pragma once

#include <cmath>

#include "kernels/gemm/gemm_types.h"

namespace sprun::kernels {

inline float activate_ref(Activation activation, float v) {
  switch (activation) {
    case Activation::kNone: return v;
    case Activation::kRelu: return v < 0.0F ? 0.0F : v;
    case Activation::kGeluErf:
    case Activation::kGeluErfCodes: return 0.5F * v * (1.0F + std::erf(v * 0.70710678118654752F));
    case Activation::kGeluTanh: {
      const float u = 0.7978845608028654F * (v + 0.044715F * v * v * v);
      return 0.5F * v * (1.0F + std::tanh(u));
    }
    case Activation::kQuickGelu: return v / (1.0F + std::exp(-1.702F * v));
    case Activation::kSilu: return v / (1.0F + std::exp(-v));
    case Activation::kTanh: return std::tanh(v);
    case Activation::kSigmoid: return 1.0F / (1.0F + std::exp(-v));
  }
  return v;
}

inline void finish_ref(const Epilogue& e, int64_t m, int64_t n, float scaled_sum, float* y) {
  float v = scaled_sum + (e.bias == nullptr ? 0.0F : e.bias[n]);
  v = activate_ref(e.activation, v);
  if (e.residual != nullptr) v += e.residual[m * e.ld_residual + n];
  *y = v;
}

// `sum` is the exact int32 result with all zero points taken out.
inline void finish_u8s8_ref(const GemmU8S8Args& a, int64_t m, int64_t n, int32_t sum) {
  if (a.y_s32 != nullptr) {
    a.y_s32[m * a.ldy + n] = sum;
    return;
  }
  const float scale = a.x_scale[m * a.x_scale_stride] * a.w_scale[n * a.w_scale_stride];
  finish_ref(a.epilogue, m, n, static_cast<float>(sum) * scale, a.y + m * a.ldy + n);
}

}  // namespace sprun::kernels
