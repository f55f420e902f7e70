// Keys and values as they lie in memory: float, bf16 (uint16_t) or 8-bit codes (int8_t; the caller applies scales).
#pragma once

#include <cstdint>

#include "kernels/simd/vec.h"

namespace sprun::kernels::attn {

// kLanes elements, or the first n and 0 elsewhere, as floats.
template <class A, class T>
struct Stored;

template <class A>
struct Stored<A, float> {
  using V = simd::F32<A>;
  SPRUN_INLINE static V load(const float* p) { return V::load(p); }
  SPRUN_INLINE static V load_partial(const float* p, int64_t n) { return V::load_partial(p, n); }
};

template <class A>
struct Stored<A, uint16_t> {
  using V = simd::F32<A>;
  SPRUN_INLINE static V load(const uint16_t* p) { return V::load_bf16(p); }
  SPRUN_INLINE static V load_partial(const uint16_t* p, int64_t n) { return V::load_bf16_partial(p, n); }
};

template <class A>
struct Stored<A, int8_t> {
  using V = simd::F32<A>;
  using I = simd::I32<A>;
  SPRUN_INLINE static V load(const int8_t* p) { return I::load_s8(p).to_f32(); }
  SPRUN_INLINE static V load_partial(const int8_t* p, int64_t n) { return I::load_s8_partial(p, n).to_f32(); }
};

// Elements of a widened row: whole vectors.
template <class A>
SPRUN_INLINE int64_t widened_pitch(int64_t dim) {
  constexpr int64_t kL = simd::F32<A>::kLanes;
  return (dim + kL - 1) / kL * kL;
}

// Rows [0, n) of `dim` elements as floats, times their scales if there are any; to: [n, widened_pitch(dim)].
template <class A, class T>
SPRUN_INLINE void widen_rows(const T* from, int64_t row, int64_t n, int64_t dim, const float* scales, float* to) {
  using V = simd::F32<A>;
  for (int64_t i = 0; i < n; ++i, from += row, to += widened_pitch<A>(dim)) {
    const V scale = V::broadcast(scales != nullptr ? scales[i] : 1.0F);
    int64_t d = 0;
    for (; d + V::kLanes <= dim; d += V::kLanes) (Stored<A, T>::load(from + d) * scale).store(to + d);
    if (d < dim) (Stored<A, T>::load_partial(from + d, dim - d) * scale).store(to + d);
  }
}

}  // namespace sprun::kernels::attn
