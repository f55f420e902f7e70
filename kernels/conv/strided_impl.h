// Vector loads of part of a line, with stride 1 or 2: what gathering from an image needs.
#pragma once

#include "kernels/simd/vec.h"

namespace sprun::kernels::conv {

// The float vectors of an ISA, with loads of part of a line. Elements outside [begin, end) are not
// touched and read as 0; 0 <= begin, end, and an empty range gives zeros.
//   load1(p, begin, end)       lane i = p[i]
//   load2(p, begin, end, &e, &o)  e lane i = p[2 * i], o lane i = p[2 * i + 1]; the range counts p
template <class Arch>
struct Strided;

template <>
struct Strided<simd::Sse2> {
  using V = simd::F32<simd::Sse2>;

  SPRUN_INLINE static V load1(const float* p, int64_t begin, int64_t end) {
    alignas(16) float lanes[4] = {};
    for (int64_t i = begin; i < end; ++i) lanes[i] = p[i];
    return V::load(lanes);
  }
  SPRUN_INLINE static void load2(const float* p, int64_t begin, int64_t end, V* even, V* odd) {
    alignas(16) float lanes[8] = {};
    for (int64_t i = begin; i < end; ++i) lanes[i] = p[i];
    split(V::load(lanes), V::load(lanes + 4), even, odd);
  }
  // The even and the odd elements of two neighbouring vectors.
  SPRUN_INLINE static void split(V low, V high, V* even, V* odd) {
    even->v = _mm_shuffle_ps(low.v, high.v, _MM_SHUFFLE(2, 0, 2, 0));
    odd->v = _mm_shuffle_ps(low.v, high.v, _MM_SHUFFLE(3, 1, 3, 1));
  }
};

#if defined(__AVX2__)
template <>
struct Strided<simd::Avx2> {
  using V = simd::F32<simd::Avx2>;

  // All bits of lanes [begin, end).
  SPRUN_INLINE static __m256i mask(int64_t begin, int64_t end) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i from =
        _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(static_cast<int32_t>(begin) - 1));
    return _mm256_andnot_si256(
        _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(static_cast<int32_t>(end) - 1)), from);
  }
  SPRUN_INLINE static V load1(const float* p, int64_t begin, int64_t end) {
    return {_mm256_maskload_ps(p, mask(begin, end))};
  }
  SPRUN_INLINE static void load2(const float* p, int64_t begin, int64_t end, V* even, V* odd) {
    const V low{_mm256_maskload_ps(p, mask(begin, end))};
    const V high{_mm256_maskload_ps(p + 8, mask(begin - 8, end - 8))};
    split(low, high, even, odd);
  }
  SPRUN_INLINE static void split(V low, V high, V* even, V* odd) {
    const __m256 e = _mm256_shuffle_ps(low.v, high.v, _MM_SHUFFLE(2, 0, 2, 0));
    const __m256 o = _mm256_shuffle_ps(low.v, high.v, _MM_SHUFFLE(3, 1, 3, 1));
    even->v = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(e), _MM_SHUFFLE(3, 1, 2, 0)));
    odd->v = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(o), _MM_SHUFFLE(3, 1, 2, 0)));
  }
};
#endif

#if defined(__AVX512F__)
template <>
struct Strided<simd::Avx512> {
  using V = simd::F32<simd::Avx512>;

  // Bits [begin, end) of 32.
  SPRUN_INLINE static uint32_t bits(int64_t begin, int64_t end) {
    if (begin >= end) return 0;
    return (~uint32_t{0} >> (32 - (end - begin))) << begin;
  }
  SPRUN_INLINE static V load1(const float* p, int64_t begin, int64_t end) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(bits(begin, end)), p)};
  }
  SPRUN_INLINE static void load2(const float* p, int64_t begin, int64_t end, V* even, V* odd) {
    const uint32_t mask = bits(begin, end);
    const V low{_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), p)};
    const V high{_mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), p + 16)};
    split(low, high, even, odd);
  }
  SPRUN_INLINE static void split(V low, V high, V* even, V* odd) {
    const __m512i e = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i o = _mm512_add_epi32(e, _mm512_set1_epi32(1));
    even->v = _mm512_permutex2var_ps(low.v, e, high.v);
    odd->v = _mm512_permutex2var_ps(low.v, o, high.v);
  }
};
#endif

template <class Arch>
SPRUN_INLINE void zero_line(float* dst, int64_t n) {
  using V = simd::F32<simd::VecArch<Arch>>;
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) V::zero().store(dst + i);
  if (i < n) V::zero().store_partial(dst + i, n - i);
}

// Positions i of [0, n) with 0 <= start + i * stride < limit.
struct LineRange {
  int64_t begin, end;
};
SPRUN_INLINE LineRange line_range(int64_t start, int64_t stride, int64_t limit, int64_t n) {
  LineRange r{0, n};
  if (start < 0) r.begin = (-start + stride - 1) / stride;
  if (start + (n - 1) * stride >= limit)
    r.end = start >= limit ? 0 : (limit - 1 - start) / stride + 1;
  if (r.begin > r.end) r.begin = r.end;
  return r;
}

}  // namespace sprun::kernels::conv
