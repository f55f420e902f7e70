// Scalar conversions between float and the 16-bit float storage types. Round to nearest even.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "sprun/dtype.h"

namespace sprun {

inline float to_float(BFloat16 v) { return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16); }

inline BFloat16 to_bfloat16(float v) {
  uint32_t u = std::bit_cast<uint32_t>(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};  // keep NaN a NaN
  u += 0x7fffu + ((u >> 16) & 1u);
  return {static_cast<uint16_t>(u >> 16)};
}

inline float to_float(Float16 v) {
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000u) << 16;
  const uint32_t exponent = (v.bits >> 10) & 0x1fu;
  const uint32_t mantissa = v.bits & 0x3ffu;
  if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal: exact in float
  return sign ? -magnitude : magnitude;
}

inline Float16 to_float16(float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v);
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to infinity
  if (magnitude < 0x38800000u) {                                                 // subnormal or zero
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p24f;
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyintf(scaled)))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

// Double needs its own path: double -> float -> half would round twice.
inline Float16 to_float16(double v) {
  const float f = static_cast<float>(v);
  if (static_cast<double>(f) == v || std::isnan(v) || std::isinf(f)) return to_float16(f);
  // Round to odd in float keeps the information that the discarded bits were not zero.
  uint32_t u = std::bit_cast<uint32_t>(f);
  if (std::abs(static_cast<double>(f)) > std::abs(v)) --u;
  return to_float16(std::bit_cast<float>(u | 1u));
}

inline BFloat16 to_bfloat16(double v) {
  const float f = static_cast<float>(v);
  if (static_cast<double>(f) == v || std::isnan(v) || std::isinf(f)) return to_bfloat16(f);
  uint32_t u = std::bit_cast<uint32_t>(f);
  if (std::abs(static_cast<double>(f)) > std::abs(v)) --u;
  return to_bfloat16(std::bit_cast<float>(u | 1u));
}

}  // namespace sprun
