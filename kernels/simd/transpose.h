// Transposes a square of vectors in registers.
//
//   F32<A> v[F32<A>::kLanes];   // rows of a kLanes x kLanes tile
//   transpose(v);               // v[i] now holds column i
#pragma once

#include "kernels/simd/vec.h"

namespace sprun::kernels::simd {

SPRUN_INLINE void transpose(F32<Sse2> (&v)[4]) {
  const __m128 a = _mm_unpacklo_ps(v[0].v, v[1].v), b = _mm_unpackhi_ps(v[0].v, v[1].v);
  const __m128 c = _mm_unpacklo_ps(v[2].v, v[3].v), d = _mm_unpackhi_ps(v[2].v, v[3].v);
  v[0].v = _mm_movelh_ps(a, c);
  v[1].v = _mm_movehl_ps(c, a);
  v[2].v = _mm_movelh_ps(b, d);
  v[3].v = _mm_movehl_ps(d, b);
}

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
// 4 x 4 blocks inside the 128-bit halves first, then the halves change places.
SPRUN_INLINE void transpose(F32<Avx2> (&v)[8]) {
#pragma GCC unroll 2
  for (int g = 0; g < 8; g += 4) {
    const __m256 a = _mm256_unpacklo_ps(v[g].v, v[g + 1].v), b = _mm256_unpackhi_ps(v[g].v, v[g + 1].v);
    const __m256 c = _mm256_unpacklo_ps(v[g + 2].v, v[g + 3].v), d = _mm256_unpackhi_ps(v[g + 2].v, v[g + 3].v);
    v[g].v = _mm256_shuffle_ps(a, c, 0x44);
    v[g + 1].v = _mm256_shuffle_ps(a, c, 0xee);
    v[g + 2].v = _mm256_shuffle_ps(b, d, 0x44);
    v[g + 3].v = _mm256_shuffle_ps(b, d, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m256 lo = v[i].v, hi = v[i + 4].v;
    v[i].v = _mm256_permute2f128_ps(lo, hi, 0x20);
    v[i + 4].v = _mm256_permute2f128_ps(lo, hi, 0x31);
  }
}
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
// 4 x 4 blocks inside the 128-bit quarters first, then the quarters change places.
SPRUN_INLINE void transpose(F32<Avx512> (&v)[16]) {
#pragma GCC unroll 4
  for (int g = 0; g < 16; g += 4) {
    const __m512 a = _mm512_unpacklo_ps(v[g].v, v[g + 1].v), b = _mm512_unpackhi_ps(v[g].v, v[g + 1].v);
    const __m512 c = _mm512_unpacklo_ps(v[g + 2].v, v[g + 3].v), d = _mm512_unpackhi_ps(v[g + 2].v, v[g + 3].v);
    v[g].v = _mm512_shuffle_ps(a, c, 0x44);
    v[g + 1].v = _mm512_shuffle_ps(a, c, 0xee);
    v[g + 2].v = _mm512_shuffle_ps(b, d, 0x44);
    v[g + 3].v = _mm512_shuffle_ps(b, d, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512 a = _mm512_shuffle_f32x4(v[i].v, v[i + 4].v, 0x88), b = _mm512_shuffle_f32x4(v[i].v, v[i + 4].v, 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(v[i + 8].v, v[i + 12].v, 0x88);
    const __m512 d = _mm512_shuffle_f32x4(v[i + 8].v, v[i + 12].v, 0xdd);
    v[i].v = _mm512_shuffle_f32x4(a, c, 0x88);
    v[i + 4].v = _mm512_shuffle_f32x4(b, d, 0x88);
    v[i + 8].v = _mm512_shuffle_f32x4(a, c, 0xdd);
    v[i + 12].v = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}
#endif

}  // namespace sprun::kernels::simd
