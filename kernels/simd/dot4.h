// Dot4<Arch>: int32 lanes += sums of four u8 x s8 products, exact on every ISA.
//
//   acc[i] += sum_{j < 4} a[j] * b[4 i + j]        a: 4 bytes u8 (one row's quad), b: s8
// from_u8(q) and from_s8(q) make operands from whole registers: a[4 i + j] instead of a[j].
// VNNI does it in one instruction. Elsewhere bytes are split into even and odd 16-bit lanes and
// multiplied by pmaddwd, which cannot overflow: 2 * 255 * 128 < 2^31. (vpmaddubsw is faster, but its
// 16-bit sum saturates: dot4_pairs.h.)
//
// Outputs as lanes: acc = add(acc, broadcast(x quad), load(weights)). Tokens as lanes:
// accumulate(acc, split_u8(x vector), broadcast_s8(weight quad)); it keeps acc in its register
// (g++ 12 copies every accumulator around the VNNI intrinsic in loops over arrays of them, which
// halves the speed).
#pragma once

#include "kernels/simd/vec.h"

namespace sprun::kernels::simd {

template <class Arch>
struct Dot4;

SPRUN_INLINE int32_t load_quad(const uint8_t* p) {
  int32_t quad;
  __builtin_memcpy(&quad, p, 4);
  return quad;
}

template <>
struct Dot4<Sse2> {
  using Acc = I32<Sse2>;
  struct A {
    __m128i even, odd;
  };
  using B = A;
  SPRUN_INLINE static A from_u8(__m128i q) {
    return {_mm_and_si128(q, _mm_set1_epi16(0xff)), _mm_srli_epi16(q, 8)};
  }
  SPRUN_INLINE static B from_s8(__m128i q) {
    return {_mm_srai_epi16(_mm_slli_epi16(q, 8), 8), _mm_srai_epi16(q, 8)};
  }
  SPRUN_INLINE static A broadcast(int32_t quad) { return from_u8(_mm_set1_epi32(quad)); }
  SPRUN_INLINE static B load(const int8_t* p) {
    return from_s8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  SPRUN_INLINE static Acc add(Acc acc, A a, B b) {
    const __m128i even = _mm_madd_epi16(a.even, b.even);
    const __m128i odd = _mm_madd_epi16(a.odd, b.odd);
    return {_mm_add_epi32(acc.v, _mm_add_epi32(even, odd))};
  }
  SPRUN_INLINE static A split_u8(__m128i q) {
    return {_mm_and_si128(q, _mm_set1_epi16(0xff)), _mm_srli_epi16(q, 8)};
  }
  SPRUN_INLINE static B broadcast_s8(int32_t quad) {
    const __m128i q = _mm_set1_epi32(quad);
    return {_mm_srai_epi16(_mm_slli_epi16(q, 8), 8), _mm_srai_epi16(q, 8)};
  }
  SPRUN_INLINE static void accumulate(Acc& acc, A a, B b) { acc = add(acc, a, b); }
};

#if defined(__AVX2__)
template <>
struct Dot4<Avx2> {
  using Acc = I32<Avx2>;
  struct A {
    __m256i even, odd;
  };
  using B = A;
  SPRUN_INLINE static A from_u8(__m256i q) {
    return {_mm256_and_si256(q, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(q, 8)};
  }
  SPRUN_INLINE static B from_s8(__m256i q) {
    return {_mm256_srai_epi16(_mm256_slli_epi16(q, 8), 8), _mm256_srai_epi16(q, 8)};
  }
  SPRUN_INLINE static A broadcast(int32_t quad) { return from_u8(_mm256_set1_epi32(quad)); }
  SPRUN_INLINE static B load(const int8_t* p) {
    return from_s8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  SPRUN_INLINE static Acc add(Acc acc, A a, B b) {
    const __m256i even = _mm256_madd_epi16(a.even, b.even);
    const __m256i odd = _mm256_madd_epi16(a.odd, b.odd);
    return {_mm256_add_epi32(acc.v, _mm256_add_epi32(even, odd))};
  }
  SPRUN_INLINE static A split_u8(__m256i q) {
    return {_mm256_and_si256(q, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(q, 8)};
  }
  SPRUN_INLINE static B broadcast_s8(int32_t quad) {
    const __m256i q = _mm256_set1_epi32(quad);
    return {_mm256_srai_epi16(_mm256_slli_epi16(q, 8), 8), _mm256_srai_epi16(q, 8)};
  }
  SPRUN_INLINE static void accumulate(Acc& acc, A a, B b) { acc = add(acc, a, b); }
};
#endif

#if defined(__AVXVNNI__)
template <>
struct Dot4<AvxVnni> {
  using Acc = I32<Avx2>;
  using A = __m256i;
  using B = __m256i;
  SPRUN_INLINE static A from_u8(__m256i q) { return q; }
  SPRUN_INLINE static B from_s8(__m256i q) { return q; }
  SPRUN_INLINE static A broadcast(int32_t quad) { return _mm256_set1_epi32(quad); }
  SPRUN_INLINE static B load(const int8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  SPRUN_INLINE static Acc add(Acc acc, A a, B b) {
    return {_mm256_dpbusd_avx_epi32(acc.v, a, b)};
  }
  SPRUN_INLINE static A split_u8(__m256i q) { return q; }
  SPRUN_INLINE static B broadcast_s8(int32_t quad) { return _mm256_set1_epi32(quad); }
  SPRUN_INLINE static void accumulate(Acc& acc, A a, B b) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc.v) : "x"(a), "x"(b));
  }
};
#endif

#if defined(__AVX512BW__)
template <>
struct Dot4<Avx512> {
  using Acc = I32<Avx512>;
  struct A {
    __m512i even, odd;
  };
  using B = A;
  SPRUN_INLINE static A from_u8(__m512i q) {
    return {_mm512_and_si512(q, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(q, 8)};
  }
  SPRUN_INLINE static B from_s8(__m512i q) {
    return {_mm512_srai_epi16(_mm512_slli_epi16(q, 8), 8), _mm512_srai_epi16(q, 8)};
  }
  SPRUN_INLINE static A broadcast(int32_t quad) { return from_u8(_mm512_set1_epi32(quad)); }
  SPRUN_INLINE static B load(const int8_t* p) {
    return from_s8(_mm512_loadu_si512(p));
  }
  SPRUN_INLINE static Acc add(Acc acc, A a, B b) {
    const __m512i even = _mm512_madd_epi16(a.even, b.even);
    const __m512i odd = _mm512_madd_epi16(a.odd, b.odd);
    return {_mm512_add_epi32(acc.v, _mm512_add_epi32(even, odd))};
  }
  SPRUN_INLINE static A split_u8(__m512i q) {
    return {_mm512_and_si512(q, _mm512_set1_epi16(0xff)), _mm512_srli_epi16(q, 8)};
  }
  SPRUN_INLINE static B broadcast_s8(int32_t quad) {
    const __m512i q = _mm512_set1_epi32(quad);
    return {_mm512_srai_epi16(_mm512_slli_epi16(q, 8), 8), _mm512_srai_epi16(q, 8)};
  }
  SPRUN_INLINE static void accumulate(Acc& acc, A a, B b) { acc = add(acc, a, b); }
};
#endif

#if defined(__AVX512VNNI__)
template <>
struct Dot4<Avx512Vnni> {
  using Acc = I32<Avx512>;
  using A = __m512i;
  using B = __m512i;
  SPRUN_INLINE static A from_u8(__m512i q) { return q; }
  SPRUN_INLINE static B from_s8(__m512i q) { return q; }
  SPRUN_INLINE static A broadcast(int32_t quad) { return _mm512_set1_epi32(quad); }
  SPRUN_INLINE static B load(const int8_t* p) { return _mm512_loadu_si512(p); }
  SPRUN_INLINE static Acc add(Acc acc, A a, B b) {
    return {_mm512_dpbusd_epi32(acc.v, a, b)};
  }
  SPRUN_INLINE static A split_u8(__m512i q) { return q; }
  SPRUN_INLINE static B broadcast_s8(int32_t quad) { return _mm512_set1_epi32(quad); }
  SPRUN_INLINE static void accumulate(Acc& acc, A a, B b) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc.v) : "v"(a), "v"(b));
  }
};
template <>
struct Dot4<Avx512Vbmi2> : Dot4<Avx512Vnni> {};
#endif

}  // namespace sprun::kernels::simd
