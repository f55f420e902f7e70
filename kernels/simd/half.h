// Scalar conversions between float and the two 16-bit float formats, round to nearest even.
// Used by the baseline vectors, by packers and by references; bit-identical to the hardware forms
// except that denormals are always kept.
#pragma once

#include <bit>
#include <cstdint>

#include "kernels/simd/arch.h"

namespace sprun::kernels::simd {

SPRUN_INLINE float bf16_to_f32(uint16_t h) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(h) << 16);
}

SPRUN_INLINE uint16_t f32_to_bf16(float x) {
  const uint32_t u = __builtin_bit_cast(uint32_t, x);
  if ((u & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((u | 0x400000U) >> 16);
  return static_cast<uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
}

SPRUN_INLINE float f16_to_f32(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000U) << 16;
  const uint32_t exponent = (h >> 10) & 0x1fU;
  const uint32_t mantissa = h & 0x3ffU;
  if (exponent == 0) {  // zero or denormal: mantissa * 2^-24 is exact in float
    const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8F;
    return __builtin_bit_cast(float, sign | __builtin_bit_cast(uint32_t, magnitude));
  }
  if (exponent == 31) {
    const uint32_t quiet = mantissa != 0 ? 0x400000U : 0U;
    return __builtin_bit_cast(float, sign | 0x7f800000U | (mantissa << 13) | quiet);
  }
  return __builtin_bit_cast(float, sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

SPRUN_INLINE uint16_t f32_to_f16(float x) {
  const uint32_t u = __builtin_bit_cast(uint32_t, x);
  const uint32_t sign = (u >> 16) & 0x8000U;
  const uint32_t a = u & 0x7fffffffU;
  if (a > 0x7f800000U) {
    return static_cast<uint16_t>(sign | 0x7e00U | ((a >> 13) & 0x3ffU));
  }
  if (a >= 0x477ff000U) return static_cast<uint16_t>(sign | 0x7c00U);  // rounds to infinity
  if (a < 0x38800000U) {  // below 2^-14: adding 0.5 aligns the last kept bit with the float's ulp
    const float shifted = __builtin_bit_cast(float, a) + 0.5F;
    return static_cast<uint16_t>(sign | (__builtin_bit_cast(uint32_t, shifted) - 0x3f000000U));
  }
  const uint32_t rounded = a + 0xfffU + ((a >> 13) & 1U) - 0x38000000U;
  return static_cast<uint16_t>(sign | (rounded >> 13));
}

}  // namespace sprun::kernels::simd
