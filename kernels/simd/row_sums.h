// Sums of kLanes vectors at once: cheaper than a reduction of each, and than a transpose before the additions.
//
//   F32<A> v[F32<A>::kLanes];
//   row_sums(v);                // lane i: the sum of the lanes of v[i]
//
// Pairs are added while they are interleaved, so every step halves the number of vectors. v is not kept.
#pragma once

#include "kernels/simd/vec.h"

namespace sprun::kernels::simd {

SPRUN_INLINE F32<Sse2> row_sums(F32<Sse2> (&v)[4]) {
  const __m128 a = _mm_add_ps(_mm_unpacklo_ps(v[0].v, v[1].v), _mm_unpackhi_ps(v[0].v, v[1].v));
  const __m128 b = _mm_add_ps(_mm_unpacklo_ps(v[2].v, v[3].v), _mm_unpackhi_ps(v[2].v, v[3].v));
  return {_mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a))};
}

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
// Sums of four vectors inside each 128-bit half first, then the halves.
SPRUN_INLINE F32<Avx2> row_sums(F32<Avx2> (&v)[8]) {
  __m256 w[2];
#pragma GCC unroll 2
  for (int g = 0; g < 2; ++g) {
    const F32<Avx2>* x = v + 4 * g;
    const __m256 a = _mm256_add_ps(_mm256_unpacklo_ps(x[0].v, x[1].v), _mm256_unpackhi_ps(x[0].v, x[1].v));
    const __m256 b = _mm256_add_ps(_mm256_unpacklo_ps(x[2].v, x[3].v), _mm256_unpackhi_ps(x[2].v, x[3].v));
    w[g] = _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
  }
  return {_mm256_add_ps(_mm256_permute2f128_ps(w[0], w[1], 0x20), _mm256_permute2f128_ps(w[0], w[1], 0x31))};
}
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
// Sums of four vectors inside each 128-bit quarter first, then pairs of quarters, twice.
SPRUN_INLINE F32<Avx512> row_sums(F32<Avx512> (&v)[16]) {
  __m512 w[4];
#pragma GCC unroll 4
  for (int g = 0; g < 4; ++g) {
    const F32<Avx512>* x = v + 4 * g;
    const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(x[0].v, x[1].v), _mm512_unpackhi_ps(x[0].v, x[1].v));
    const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(x[2].v, x[3].v), _mm512_unpackhi_ps(x[2].v, x[3].v));
    w[g] = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  }
  const auto halves = [](__m512 a, __m512 b) __attribute__((always_inline)) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  };
  return {halves(halves(w[0], w[1]), halves(w[2], w[3]))};
}
#endif

}  // namespace sprun::kernels::simd
