// Dot4Pairs<Arch>: the operations of Dot4 (dot4.h) for CPUs without VNNI, on bounded weights.
//
// vpmaddubsw adds two neighbouring products in 16 bits that saturate. With u8 inputs up to 255 they
// cannot when the positive weights of each pair sum to 128 at most, and the negative ones to -128 at
// least: 255 * 128 < 2^15. The caller must have proved that for every pair (2 i, 2 i + 1) of bytes
// that are loaded or broadcast as weights; the sums are then exact, and X needs no splitting.
#pragma once

#include "kernels/simd/dot4.h"

namespace sprun::kernels::simd {

template <class Arch>
struct Dot4Pairs;

// Whether an instruction set has a Dot4Pairs that is worth having.
template <class Arch>
inline constexpr bool kHasPairs = false;

#if defined(__AVX2__)
template <>
inline constexpr bool kHasPairs<Avx2> = true;
template <>
struct Dot4Pairs<Avx2> {
  using Acc = I32<Avx2>;
  using A = __m256i;
  using B = __m256i;
  SPRUN_INLINE static A split_u8(__m256i q) { return q; }
  SPRUN_INLINE static A broadcast(int32_t quad) { return _mm256_set1_epi32(quad); }
  SPRUN_INLINE static B broadcast_s8(int32_t quad) { return _mm256_set1_epi32(quad); }
  SPRUN_INLINE static B load(const int8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  SPRUN_INLINE static void accumulate(Acc& acc, A a, B b) {
    const __m256i pairs = _mm256_maddubs_epi16(a, b);
    acc.v = _mm256_add_epi32(acc.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};
#endif

#if defined(__AVX512BW__)
template <>
inline constexpr bool kHasPairs<Avx512> = true;
template <>
struct Dot4Pairs<Avx512> {
  using Acc = I32<Avx512>;
  using A = __m512i;
  using B = __m512i;
  SPRUN_INLINE static A split_u8(__m512i q) { return q; }
  SPRUN_INLINE static A broadcast(int32_t quad) { return _mm512_set1_epi32(quad); }
  SPRUN_INLINE static B broadcast_s8(int32_t quad) { return _mm512_set1_epi32(quad); }
  SPRUN_INLINE static B load(const int8_t* p) { return _mm512_loadu_si512(p); }
  SPRUN_INLINE static void accumulate(Acc& acc, A a, B b) {
    const __m512i pairs = _mm512_maddubs_epi16(a, b);
    acc.v = _mm512_add_epi32(acc.v, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
};
#endif

}  // namespace sprun::kernels::simd
