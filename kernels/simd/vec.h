// Portable vectors of float and int32: one kernel body for every ISA.
//
//   template <class Arch> void scale(float* x, int64_t n, float s) {
//     using V = simd::F32<simd::VecArch<Arch>>;
//     int64_t i = 0;
//     for (; i + V::kLanes <= n; i += V::kLanes) (V::load(x + i) * V::broadcast(s)).store(x + i);
//     if (i < n) (V::load_partial(x + i, n - i) * V::broadcast(s)).store_partial(x + i, n - i);
//   }
//
// F32<Arch> (kLanes = 4, 8 or 16) and I32<Arch> offer, on any alignment:
//   load(p) store(p)                 kLanes elements
//   load_partial(p, n)               the first n elements, 0 elsewhere; touches nothing past p + n
//   store_partial(p, n)              writes exactly n elements;  0 <= n <= kLanes for both
//   broadcast(x) zero()  + - * /  (I32: + - * & | ^ shl shr_arith shr_logic)
// F32 also: fma(a, b, c) = a * b + c (one rounding where kFusedMultiplyAdd, two on SSE2),
//   min max (the SECOND operand is returned when either is NaN), abs, sqrt, round_even,
//   select(mask, a, b), < <= > >= == (false on NaN), reduce_add, reduce_max, reduce_min,
//   load_f16 load_bf16 store_f16 store_bf16 (+ _partial; round to nearest even).
// I32 also: load_u8, load_s8 (kLanes bytes, widened; + _partial), store_u8_sat (+ _partial),
//   to_f32, from_f32 (round to nearest even; out of range gives INT32_MIN), as_f32, as_i32.
// Everything is always inlined; nothing here may be called across files.
#pragma once

#include "kernels/simd/arch.h"
#include "kernels/simd/vec_sse2.h"  // IWYU pragma: export
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kernels/simd/vec_avx2.h"  // IWYU pragma: export
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#include "kernels/simd/vec_avx512.h"  // IWYU pragma: export
#endif

namespace sprun::kernels::simd {

// Applies fn (an always-inline callable F32 -> F32) to n floats. y may be x itself.
template <class Arch, class Fn>
SPRUN_INLINE void map(const float* x, float* y, int64_t n, Fn fn) {
  using V = F32<VecArch<Arch>>;
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) fn(V::load(x + i)).store(y + i);
  if (i < n) fn(V::load_partial(x + i, n - i)).store_partial(y + i, n - i);
}

}  // namespace sprun::kernels::simd
