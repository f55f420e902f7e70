// AVX-512 vectors (16 lanes). See vec.h for the meaning of each operation.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/simd/arch.h"

namespace sprun::kernels::simd {

SPRUN_INLINE __mmask16 avx512_mask(int64_t n) {
  return static_cast<__mmask16>((1U << static_cast<unsigned>(n)) - 1U);
}

template <>
struct Mask<Avx512> {
  __mmask16 v;
  SPRUN_INLINE friend Mask operator&(Mask a, Mask b) { return {_kand_mask16(a.v, b.v)}; }
  SPRUN_INLINE friend Mask operator|(Mask a, Mask b) { return {_kor_mask16(a.v, b.v)}; }
  SPRUN_INLINE bool any() const { return v != 0; }
};

template <>
struct F32<Avx512> {
  static constexpr int64_t kLanes = 16;
  static constexpr bool kFusedMultiplyAdd = true;
  using M = Mask<Avx512>;
  __m512 v;

  SPRUN_INLINE static F32 zero() { return {_mm512_setzero_ps()}; }
  SPRUN_INLINE static F32 broadcast(float x) { return {_mm512_set1_ps(x)}; }
  SPRUN_INLINE static F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
  SPRUN_INLINE static F32 load_partial(const float* p, int64_t n) {
    return {_mm512_maskz_loadu_ps(avx512_mask(n), p)};
  }
  SPRUN_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
  SPRUN_INLINE void store_partial(float* p, int64_t n) const {
    _mm512_mask_storeu_ps(p, avx512_mask(n), v);
  }
  SPRUN_INLINE static F32 load_f16(const uint16_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  SPRUN_INLINE static F32 load_f16_partial(const uint16_t* p, int64_t n) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(avx512_mask(n), p))};
  }
  SPRUN_INLINE void store_f16(uint16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_f16());
  }
  SPRUN_INLINE void store_f16_partial(uint16_t* p, int64_t n) const {
    _mm256_mask_storeu_epi16(p, avx512_mask(n), to_f16());
  }
  SPRUN_INLINE static F32 load_bf16(const uint16_t* p) {
    return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  SPRUN_INLINE static F32 load_bf16_partial(const uint16_t* p, int64_t n) {
    return from_bf16(_mm256_maskz_loadu_epi16(avx512_mask(n), p));
  }
  SPRUN_INLINE void store_bf16(uint16_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16());
  }
  SPRUN_INLINE void store_bf16_partial(uint16_t* p, int64_t n) const {
    _mm256_mask_storeu_epi16(p, avx512_mask(n), to_bf16());
  }

  SPRUN_INLINE friend F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator-(F32 a) {
    return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0F))};
  }
  SPRUN_INLINE friend M operator<(F32 a, F32 b) { return cmp<_CMP_LT_OQ>(a, b); }
  SPRUN_INLINE friend M operator<=(F32 a, F32 b) { return cmp<_CMP_LE_OQ>(a, b); }
  SPRUN_INLINE friend M operator>(F32 a, F32 b) { return cmp<_CMP_GT_OQ>(a, b); }
  SPRUN_INLINE friend M operator>=(F32 a, F32 b) { return cmp<_CMP_GE_OQ>(a, b); }
  SPRUN_INLINE friend M operator==(F32 a, F32 b) { return cmp<_CMP_EQ_OQ>(a, b); }
  SPRUN_INLINE static F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  SPRUN_INLINE static F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
  SPRUN_INLINE static F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
  SPRUN_INLINE static F32 abs(F32 a) { return {_mm512_abs_ps(a.v)}; }
  SPRUN_INLINE static F32 sqrt(F32 a) { return {_mm512_sqrt_ps(a.v)}; }
  SPRUN_INLINE static F32 round_even(F32 a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  SPRUN_INLINE static F32 select(M m, F32 a, F32 b) {
    return {_mm512_mask_blend_ps(m.v, b.v, a.v)};
  }
  // x * 2^n for integral n; exact into the denormals, infinite above the range.
  SPRUN_INLINE static F32 scale_pow2(F32 x, F32 n) { return {_mm512_scalef_ps(x.v, n.v)}; }
  SPRUN_INLINE float reduce_add() const { return _mm512_reduce_add_ps(v); }
  SPRUN_INLINE float reduce_max() const { return _mm512_reduce_max_ps(v); }
  SPRUN_INLINE float reduce_min() const { return _mm512_reduce_min_ps(v); }

 private:
  template <int kOp>
  SPRUN_INLINE static M cmp(F32 a, F32 b) {
    return {_mm512_cmp_ps_mask(a.v, b.v, kOp)};
  }
  SPRUN_INLINE static F32 from_bf16(__m256i h) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))};
  }
  SPRUN_INLINE __m256i to_f16() const {
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // Integer rounding, not vcvtneps2bf16: that one flushes denormals, and every ISA must agree.
  SPRUN_INLINE __m256i to_bf16() const {
    const __m512i u = _mm512_castps_si512(v);
    const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
    const __m512i quiet = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    const __m512i r = _mm512_mask_blend_epi32(nan, up, quiet);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
  }
};

template <>
struct I32<Avx512> {
  static constexpr int64_t kLanes = 16;
  __m512i v;

  SPRUN_INLINE static I32 zero() { return {_mm512_setzero_si512()}; }
  SPRUN_INLINE static I32 broadcast(int32_t x) { return {_mm512_set1_epi32(x)}; }
  SPRUN_INLINE static I32 load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
  SPRUN_INLINE static I32 load_partial(const int32_t* p, int64_t n) {
    return {_mm512_maskz_loadu_epi32(avx512_mask(n), p)};
  }
  SPRUN_INLINE void store(int32_t* p) const { _mm512_storeu_si512(p, v); }
  SPRUN_INLINE void store_partial(int32_t* p, int64_t n) const {
    _mm512_mask_storeu_epi32(p, avx512_mask(n), v);
  }
  SPRUN_INLINE static I32 load_u8(const uint8_t* p) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  SPRUN_INLINE static I32 load_u8_partial(const uint8_t* p, int64_t n) {
    return {_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(avx512_mask(n), p))};
  }
  SPRUN_INLINE static I32 load_s8(const int8_t* p) {
    return {_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  SPRUN_INLINE static I32 load_s8_partial(const int8_t* p, int64_t n) {
    return {_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(avx512_mask(n), p))};
  }
  SPRUN_INLINE void store_u8_sat(uint8_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_u8_sat());
  }
  SPRUN_INLINE void store_u8_sat_partial(uint8_t* p, int64_t n) const {
    _mm_mask_storeu_epi8(p, avx512_mask(n), to_u8_sat());
  }
  SPRUN_INLINE friend I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator*(I32 a, I32 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator&(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator|(I32 a, I32 b) { return {_mm512_or_si512(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator^(I32 a, I32 b) { return {_mm512_xor_si512(a.v, b.v)}; }
  template <unsigned kBits>
  SPRUN_INLINE I32 shl() const {
    return {_mm512_slli_epi32(v, kBits)};
  }
  template <unsigned kBits>
  SPRUN_INLINE I32 shr_arith() const {
    return {_mm512_srai_epi32(v, kBits)};
  }
  template <unsigned kBits>
  SPRUN_INLINE I32 shr_logic() const {
    return {_mm512_srli_epi32(v, kBits)};
  }
  SPRUN_INLINE static I32 max(I32 a, I32 b) { return {_mm512_max_epi32(a.v, b.v)}; }
  SPRUN_INLINE static I32 min(I32 a, I32 b) { return {_mm512_min_epi32(a.v, b.v)}; }
  SPRUN_INLINE F32<Avx512> to_f32() const { return {_mm512_cvtepi32_ps(v)}; }
  SPRUN_INLINE static I32 from_f32(F32<Avx512> a) { return {_mm512_cvtps_epi32(a.v)}; }
  SPRUN_INLINE F32<Avx512> as_f32() const { return {_mm512_castsi512_ps(v)}; }
  SPRUN_INLINE static I32 as_i32(F32<Avx512> a) { return {_mm512_castps_si512(a.v)}; }
  SPRUN_INLINE int32_t reduce_add() const { return _mm512_reduce_add_epi32(v); }

 private:
  SPRUN_INLINE __m128i to_u8_sat() const {
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(v, _mm512_setzero_si512()));
  }
};

}  // namespace sprun::kernels::simd
