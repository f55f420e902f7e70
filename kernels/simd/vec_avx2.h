// AVX2 + FMA + F16C vectors (8 lanes). See vec.h for the meaning of each operation.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/simd/arch.h"

namespace sprun::kernels::simd {

// Lane masks for partial loads and stores: loading at 8 - n gives n active lanes.
alignas(32) inline constexpr int32_t kAvx2MaskTable[16] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                           0,  0,  0,  0,  0,  0,  0,  0};

SPRUN_INLINE __m256i avx2_mask(int64_t n) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kAvx2MaskTable + 8 - n));
}

// Copies n < 16 bytes without touching anything beyond; the rest of the vector is 0.
SPRUN_INLINE __m128i load_bytes_partial(const void* p, int64_t n) {
  alignas(16) uint8_t tmp[16] = {};
  __builtin_memcpy(tmp, p, static_cast<size_t>(n));
  return _mm_load_si128(reinterpret_cast<const __m128i*>(tmp));
}
SPRUN_INLINE void store_bytes_partial(void* p, __m128i v, int64_t n) {
  alignas(16) uint8_t tmp[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(tmp), v);
  __builtin_memcpy(p, tmp, static_cast<size_t>(n));
}

template <>
struct Mask<Avx2> {
  __m256 v;
  SPRUN_INLINE friend Mask operator&(Mask a, Mask b) { return {_mm256_and_ps(a.v, b.v)}; }
  SPRUN_INLINE friend Mask operator|(Mask a, Mask b) { return {_mm256_or_ps(a.v, b.v)}; }
  SPRUN_INLINE bool any() const { return _mm256_movemask_ps(v) != 0; }
};

template <>
struct F32<Avx2> {
  static constexpr int64_t kLanes = 8;
  static constexpr bool kFusedMultiplyAdd = true;
  using M = Mask<Avx2>;
  __m256 v;

  SPRUN_INLINE static F32 zero() { return {_mm256_setzero_ps()}; }
  SPRUN_INLINE static F32 broadcast(float x) { return {_mm256_set1_ps(x)}; }
  SPRUN_INLINE static F32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
  SPRUN_INLINE static F32 load_partial(const float* p, int64_t n) {
    return {_mm256_maskload_ps(p, avx2_mask(n))};
  }
  SPRUN_INLINE void store(float* p) const { _mm256_storeu_ps(p, v); }
  SPRUN_INLINE void store_partial(float* p, int64_t n) const {
    _mm256_maskstore_ps(p, avx2_mask(n), v);
  }
  SPRUN_INLINE static F32 load_f16(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
  }
  SPRUN_INLINE static F32 load_f16_partial(const uint16_t* p, int64_t n) {
    return {_mm256_cvtph_ps(load_bytes_partial(p, 2 * n))};
  }
  SPRUN_INLINE void store_f16(uint16_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_f16());
  }
  SPRUN_INLINE void store_f16_partial(uint16_t* p, int64_t n) const {
    store_bytes_partial(p, to_f16(), 2 * n);
  }
  SPRUN_INLINE static F32 load_bf16(const uint16_t* p) {
    return from_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  SPRUN_INLINE static F32 load_bf16_partial(const uint16_t* p, int64_t n) {
    return from_bf16(load_bytes_partial(p, 2 * n));
  }
  SPRUN_INLINE void store_bf16(uint16_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bf16());
  }
  SPRUN_INLINE void store_bf16_partial(uint16_t* p, int64_t n) const {
    store_bytes_partial(p, to_bf16(), 2 * n);
  }

  SPRUN_INLINE friend F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator-(F32 a) {
    return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0F))};
  }
  SPRUN_INLINE friend M operator<(F32 a, F32 b) { return cmp<_CMP_LT_OQ>(a, b); }
  SPRUN_INLINE friend M operator<=(F32 a, F32 b) { return cmp<_CMP_LE_OQ>(a, b); }
  SPRUN_INLINE friend M operator>(F32 a, F32 b) { return cmp<_CMP_GT_OQ>(a, b); }
  SPRUN_INLINE friend M operator>=(F32 a, F32 b) { return cmp<_CMP_GE_OQ>(a, b); }
  SPRUN_INLINE friend M operator==(F32 a, F32 b) { return cmp<_CMP_EQ_OQ>(a, b); }
  SPRUN_INLINE static F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  SPRUN_INLINE static F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
  SPRUN_INLINE static F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
  SPRUN_INLINE static F32 abs(F32 a) {
    return {_mm256_andnot_ps(_mm256_set1_ps(-0.0F), a.v)};
  }
  SPRUN_INLINE static F32 sqrt(F32 a) { return {_mm256_sqrt_ps(a.v)}; }
  SPRUN_INLINE static F32 round_even(F32 a) {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  SPRUN_INLINE static F32 select(M m, F32 a, F32 b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
  // x * 2^n for integral n in [-252, 254]; in two steps, so that denormals and infinity come out.
  SPRUN_INLINE static F32 scale_pow2(F32 x, F32 n) {
    const __m256i i = _mm256_cvtps_epi32(n.v);
    const __m256i half = _mm256_srai_epi32(i, 1);
    return {_mm256_mul_ps(_mm256_mul_ps(x.v, pow2(half)), pow2(_mm256_sub_epi32(i, half)))};
  }
  SPRUN_INLINE float reduce_add() const {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  SPRUN_INLINE float reduce_max() const {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  SPRUN_INLINE float reduce_min() const {
    __m128 s = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_min_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_min_ss(s, _mm_shuffle_ps(s, s, 1)));
  }

 private:
  template <int kOp>
  SPRUN_INLINE static M cmp(F32 a, F32 b) {
    return {_mm256_cmp_ps(a.v, b.v, kOp)};
  }
  SPRUN_INLINE static __m256 pow2(__m256i n) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  SPRUN_INLINE static F32 from_bf16(__m128i h) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))};
  }
  SPRUN_INLINE __m128i to_f16() const {
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  SPRUN_INLINE __m128i to_bf16() const {
    const __m256i u = _mm256_castps_si256(v);
    const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i r = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
  }
};

template <>
struct I32<Avx2> {
  static constexpr int64_t kLanes = 8;
  __m256i v;

  SPRUN_INLINE static I32 zero() { return {_mm256_setzero_si256()}; }
  SPRUN_INLINE static I32 broadcast(int32_t x) { return {_mm256_set1_epi32(x)}; }
  SPRUN_INLINE static I32 load(const int32_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
  }
  SPRUN_INLINE static I32 load_partial(const int32_t* p, int64_t n) {
    return {_mm256_maskload_epi32(p, avx2_mask(n))};
  }
  SPRUN_INLINE void store(int32_t* p) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
  SPRUN_INLINE void store_partial(int32_t* p, int64_t n) const {
    _mm256_maskstore_epi32(p, avx2_mask(n), v);
  }
  SPRUN_INLINE static I32 load_u8(const uint8_t* p) {
    return {_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
  }
  SPRUN_INLINE static I32 load_u8_partial(const uint8_t* p, int64_t n) {
    return {_mm256_cvtepu8_epi32(load_bytes_partial(p, n))};
  }
  SPRUN_INLINE static I32 load_s8(const int8_t* p) {
    return {_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))};
  }
  SPRUN_INLINE static I32 load_s8_partial(const int8_t* p, int64_t n) {
    return {_mm256_cvtepi8_epi32(load_bytes_partial(p, n))};
  }
  SPRUN_INLINE void store_u8_sat(uint8_t* p) const {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), to_u8_sat());
  }
  SPRUN_INLINE void store_u8_sat_partial(uint8_t* p, int64_t n) const {
    store_bytes_partial(p, to_u8_sat(), n);
  }
  SPRUN_INLINE friend I32 operator+(I32 a, I32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator-(I32 a, I32 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator*(I32 a, I32 b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator&(I32 a, I32 b) { return {_mm256_and_si256(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator|(I32 a, I32 b) { return {_mm256_or_si256(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator^(I32 a, I32 b) { return {_mm256_xor_si256(a.v, b.v)}; }
  template <int kBits>
  SPRUN_INLINE I32 shl() const {
    return {_mm256_slli_epi32(v, kBits)};
  }
  template <int kBits>
  SPRUN_INLINE I32 shr_arith() const {
    return {_mm256_srai_epi32(v, kBits)};
  }
  template <int kBits>
  SPRUN_INLINE I32 shr_logic() const {
    return {_mm256_srli_epi32(v, kBits)};
  }
  SPRUN_INLINE static I32 max(I32 a, I32 b) { return {_mm256_max_epi32(a.v, b.v)}; }
  SPRUN_INLINE static I32 min(I32 a, I32 b) { return {_mm256_min_epi32(a.v, b.v)}; }
  SPRUN_INLINE F32<Avx2> to_f32() const { return {_mm256_cvtepi32_ps(v)}; }
  SPRUN_INLINE static I32 from_f32(F32<Avx2> a) { return {_mm256_cvtps_epi32(a.v)}; }
  SPRUN_INLINE F32<Avx2> as_f32() const { return {_mm256_castsi256_ps(v)}; }
  SPRUN_INLINE static I32 as_i32(F32<Avx2> a) { return {_mm256_castps_si256(a.v)}; }
  SPRUN_INLINE int32_t reduce_add() const {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }

 private:
  SPRUN_INLINE __m128i to_u8_sat() const {
    const __m128i w = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return _mm_packus_epi16(w, w);
  }
};

}  // namespace sprun::kernels::simd
