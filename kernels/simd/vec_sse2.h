// SSE2 vectors (4 lanes), the x86-64 baseline. See vec.h for the meaning of each operation.
#pragma once

#include <emmintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/simd/arch.h"
#include "kernels/simd/half.h"

namespace sprun::kernels::simd {

// n <= 4 elements of 4 bytes; nothing beyond them is touched.
SPRUN_INLINE __m128i sse2_load_partial(const void* p, int64_t n) {
  alignas(16) uint8_t tmp[16] = {};
  __builtin_memcpy(tmp, p, static_cast<size_t>(4 * n));
  return _mm_load_si128(reinterpret_cast<const __m128i*>(tmp));
}
SPRUN_INLINE void sse2_store_partial(void* p, __m128i v, int64_t n) {
  alignas(16) uint8_t tmp[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(tmp), v);
  __builtin_memcpy(p, tmp, static_cast<size_t>(4 * n));
}
SPRUN_INLINE __m128i sse2_blend(__m128i mask, __m128i a, __m128i b) {
  return _mm_or_si128(_mm_and_si128(mask, a), _mm_andnot_si128(mask, b));
}

template <>
struct Mask<Sse2> {
  __m128 v;
  SPRUN_INLINE friend Mask operator&(Mask a, Mask b) { return {_mm_and_ps(a.v, b.v)}; }
  SPRUN_INLINE friend Mask operator|(Mask a, Mask b) { return {_mm_or_ps(a.v, b.v)}; }
  SPRUN_INLINE bool any() const { return _mm_movemask_ps(v) != 0; }
};

template <>
struct F32<Sse2> {
  static constexpr int64_t kLanes = 4;
  static constexpr bool kFusedMultiplyAdd = false;
  using M = Mask<Sse2>;
  __m128 v;

  SPRUN_INLINE static F32 zero() { return {_mm_setzero_ps()}; }
  SPRUN_INLINE static F32 broadcast(float x) { return {_mm_set1_ps(x)}; }
  SPRUN_INLINE static F32 load(const float* p) { return {_mm_loadu_ps(p)}; }
  SPRUN_INLINE static F32 load_partial(const float* p, int64_t n) {
    return {_mm_castsi128_ps(sse2_load_partial(p, n))};
  }
  SPRUN_INLINE void store(float* p) const { _mm_storeu_ps(p, v); }
  SPRUN_INLINE void store_partial(float* p, int64_t n) const {
    sse2_store_partial(p, _mm_castps_si128(v), n);
  }
  SPRUN_INLINE static F32 load_f16(const uint16_t* p) { return load_f16_partial(p, kLanes); }
  SPRUN_INLINE static F32 load_f16_partial(const uint16_t* p, int64_t n) {
    alignas(16) float tmp[4] = {};
    for (int64_t i = 0; i < n; ++i) tmp[i] = f16_to_f32(p[i]);
    return {_mm_load_ps(tmp)};
  }
  SPRUN_INLINE void store_f16(uint16_t* p) const { store_f16_partial(p, kLanes); }
  SPRUN_INLINE void store_f16_partial(uint16_t* p, int64_t n) const {
    alignas(16) float tmp[4];
    _mm_store_ps(tmp, v);
    for (int64_t i = 0; i < n; ++i) p[i] = f32_to_f16(tmp[i]);
  }
  SPRUN_INLINE static F32 load_bf16(const uint16_t* p) {
    const __m128i h = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return {_mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), h))};
  }
  SPRUN_INLINE static F32 load_bf16_partial(const uint16_t* p, int64_t n) {
    uint16_t tmp[4] = {};
    __builtin_memcpy(tmp, p, static_cast<size_t>(2 * n));
    return load_bf16(tmp);
  }
  SPRUN_INLINE void store_bf16(uint16_t* p) const { store_bf16_partial(p, kLanes); }
  SPRUN_INLINE void store_bf16_partial(uint16_t* p, int64_t n) const {
    alignas(16) float tmp[4];
    _mm_store_ps(tmp, v);
    for (int64_t i = 0; i < n; ++i) p[i] = f32_to_bf16(tmp[i]);
  }

  SPRUN_INLINE friend F32 operator+(F32 a, F32 b) { return {_mm_add_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator-(F32 a, F32 b) { return {_mm_sub_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator*(F32 a, F32 b) { return {_mm_mul_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator/(F32 a, F32 b) { return {_mm_div_ps(a.v, b.v)}; }
  SPRUN_INLINE friend F32 operator-(F32 a) { return {_mm_xor_ps(a.v, _mm_set1_ps(-0.0F))}; }
  SPRUN_INLINE friend M operator<(F32 a, F32 b) { return {_mm_cmplt_ps(a.v, b.v)}; }
  SPRUN_INLINE friend M operator<=(F32 a, F32 b) { return {_mm_cmple_ps(a.v, b.v)}; }
  SPRUN_INLINE friend M operator>(F32 a, F32 b) { return {_mm_cmpgt_ps(a.v, b.v)}; }
  SPRUN_INLINE friend M operator>=(F32 a, F32 b) { return {_mm_cmpge_ps(a.v, b.v)}; }
  SPRUN_INLINE friend M operator==(F32 a, F32 b) { return {_mm_cmpeq_ps(a.v, b.v)}; }
  SPRUN_INLINE static F32 fma(F32 a, F32 b, F32 c) { return a * b + c; }
  SPRUN_INLINE static F32 min(F32 a, F32 b) { return {_mm_min_ps(a.v, b.v)}; }
  SPRUN_INLINE static F32 max(F32 a, F32 b) { return {_mm_max_ps(a.v, b.v)}; }
  SPRUN_INLINE static F32 abs(F32 a) { return {_mm_andnot_ps(_mm_set1_ps(-0.0F), a.v)}; }
  SPRUN_INLINE static F32 sqrt(F32 a) { return {_mm_sqrt_ps(a.v)}; }
  // Values of 2^23 and above (and NaN) are already integral; the conversion would overflow there.
  SPRUN_INLINE static F32 round_even(F32 a) {
    const __m128 sign = _mm_and_ps(a.v, _mm_set1_ps(-0.0F));
    const __m128 r = _mm_or_ps(_mm_cvtepi32_ps(_mm_cvtps_epi32(a.v)), sign);
    return select(abs(a) < broadcast(8388608.0F), {r}, a);
  }
  SPRUN_INLINE static F32 select(M m, F32 a, F32 b) {
    return {_mm_or_ps(_mm_and_ps(m.v, a.v), _mm_andnot_ps(m.v, b.v))};
  }
  // x * 2^n for integral n in [-252, 254]; in two steps, so that denormals and infinity come out.
  SPRUN_INLINE static F32 scale_pow2(F32 x, F32 n) {
    const __m128i i = _mm_cvtps_epi32(n.v);
    const __m128i half = _mm_srai_epi32(i, 1);
    return {_mm_mul_ps(_mm_mul_ps(x.v, pow2(half)), pow2(_mm_sub_epi32(i, half)))};
  }
  SPRUN_INLINE float reduce_add() const {
    const __m128 s = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  SPRUN_INLINE float reduce_max() const {
    const __m128 s = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  SPRUN_INLINE float reduce_min() const {
    const __m128 s = _mm_min_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_min_ss(s, _mm_shuffle_ps(s, s, 1)));
  }

 private:
  SPRUN_INLINE static __m128 pow2(__m128i n) {
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(n, _mm_set1_epi32(127)), 23));
  }
};

template <>
struct I32<Sse2> {
  static constexpr int64_t kLanes = 4;
  __m128i v;

  SPRUN_INLINE static I32 zero() { return {_mm_setzero_si128()}; }
  SPRUN_INLINE static I32 broadcast(int32_t x) { return {_mm_set1_epi32(x)}; }
  SPRUN_INLINE static I32 load(const int32_t* p) {
    return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))};
  }
  SPRUN_INLINE static I32 load_partial(const int32_t* p, int64_t n) {
    return {sse2_load_partial(p, n)};
  }
  SPRUN_INLINE void store(int32_t* p) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v);
  }
  SPRUN_INLINE void store_partial(int32_t* p, int64_t n) const { sse2_store_partial(p, v, n); }
  SPRUN_INLINE static I32 load_u8(const uint8_t* p) { return load_u8_partial(p, kLanes); }
  SPRUN_INLINE static I32 load_u8_partial(const uint8_t* p, int64_t n) {
    const __m128i z = _mm_setzero_si128();
    return {_mm_unpacklo_epi16(_mm_unpacklo_epi8(load4(p, n), z), z)};
  }
  SPRUN_INLINE static I32 load_s8(const int8_t* p) { return load_s8_partial(p, kLanes); }
  SPRUN_INLINE static I32 load_s8_partial(const int8_t* p, int64_t n) {
    const __m128i b = load4(p, n);
    const __m128i w = _mm_unpacklo_epi8(b, b);
    return {_mm_srai_epi32(_mm_unpacklo_epi16(w, w), 24)};
  }
  SPRUN_INLINE void store_u8_sat(uint8_t* p) const { store_u8_sat_partial(p, kLanes); }
  SPRUN_INLINE void store_u8_sat_partial(uint8_t* p, int64_t n) const {
    const __m128i w = _mm_packs_epi32(v, v);
    const int32_t b = _mm_cvtsi128_si32(_mm_packus_epi16(w, w));
    __builtin_memcpy(p, &b, static_cast<size_t>(n));
  }
  SPRUN_INLINE friend I32 operator+(I32 a, I32 b) { return {_mm_add_epi32(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator-(I32 a, I32 b) { return {_mm_sub_epi32(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator*(I32 a, I32 b) {
    const __m128i even = _mm_mul_epu32(a.v, b.v);
    const __m128i odd = _mm_mul_epu32(_mm_srli_si128(a.v, 4), _mm_srli_si128(b.v, 4));
    return {_mm_unpacklo_epi32(_mm_shuffle_epi32(even, 0x08), _mm_shuffle_epi32(odd, 0x08))};
  }
  SPRUN_INLINE friend I32 operator&(I32 a, I32 b) { return {_mm_and_si128(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator|(I32 a, I32 b) { return {_mm_or_si128(a.v, b.v)}; }
  SPRUN_INLINE friend I32 operator^(I32 a, I32 b) { return {_mm_xor_si128(a.v, b.v)}; }
  template <int kBits>
  SPRUN_INLINE I32 shl() const {
    return {_mm_slli_epi32(v, kBits)};
  }
  template <int kBits>
  SPRUN_INLINE I32 shr_arith() const {
    return {_mm_srai_epi32(v, kBits)};
  }
  template <int kBits>
  SPRUN_INLINE I32 shr_logic() const {
    return {_mm_srli_epi32(v, kBits)};
  }
  SPRUN_INLINE static I32 max(I32 a, I32 b) {
    return {sse2_blend(_mm_cmpgt_epi32(a.v, b.v), a.v, b.v)};
  }
  SPRUN_INLINE static I32 min(I32 a, I32 b) {
    return {sse2_blend(_mm_cmpgt_epi32(a.v, b.v), b.v, a.v)};
  }
  SPRUN_INLINE F32<Sse2> to_f32() const { return {_mm_cvtepi32_ps(v)}; }
  SPRUN_INLINE static I32 from_f32(F32<Sse2> a) { return {_mm_cvtps_epi32(a.v)}; }
  SPRUN_INLINE F32<Sse2> as_f32() const { return {_mm_castsi128_ps(v)}; }
  SPRUN_INLINE static I32 as_i32(F32<Sse2> a) { return {_mm_castps_si128(a.v)}; }
  SPRUN_INLINE int32_t reduce_add() const {
    const __m128i s = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
  }

 private:
  SPRUN_INLINE static __m128i load4(const void* p, int64_t n) {
    int32_t b = 0;
    __builtin_memcpy(&b, p, static_cast<size_t>(n));
    return _mm_cvtsi32_si128(b);
  }
};

}  // namespace sprun::kernels::simd
