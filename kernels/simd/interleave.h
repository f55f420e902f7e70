// Four rows of bytes, one byte per token, become vectors of dwords.
//
//   quads<Arch, kFirst, kCount>(a, b, c, d, q): dword i of q[t] is
//   { a[p], b[p], c[p], d[p] } with p = 16 L + 4 (kFirst + t) + e for dword i = 4 L + e. So when
//   byte p = 16 L + 4 v + e of a row belongs to token 16 v + 4 L + e, vector t holds tokens
//   in their natural order on every width (kColumnSlabs of bsr_spmm_types.h).
// Interleave<Arch>::even16(a, b), odd16(a, b): in each 128-bit lane, the low or the high halves of
// the dwords of a and then of b; low16() and high16() put such rows together again.
// Interleave<Arch>::turn4(v): in each 128-bit lane, a 4 x 4 square of bytes turned around.
// Interleave<Arch>::s16_of_s32(a, b), u8_of_s16(a, b): in each 128-bit lane, the numbers of a and then of b, saturated;
// in_order(u8_of_s16(s16_of_s32(a, b), s16_of_s32(c, d))) is a, b, c and d one after the other.
// Interleave<Arch>::store_lanes(p, stride, v): 128-bit lane i of v to p + i * stride.
#pragma once

#include "kernels/simd/vec.h"

namespace sprun::kernels::simd {

template <class VecArch>
struct Interleave;

template <>
struct Interleave<Sse2> {
  using Raw = __m128i;
  SPRUN_INLINE static Raw load(const void* p) {
    return _mm_loadu_si128(static_cast<const __m128i*>(p));
  }
  SPRUN_INLINE static Raw low8(Raw a, Raw b) { return _mm_unpacklo_epi8(a, b); }
  SPRUN_INLINE static Raw high8(Raw a, Raw b) { return _mm_unpackhi_epi8(a, b); }
  SPRUN_INLINE static Raw low16(Raw a, Raw b) { return _mm_unpacklo_epi16(a, b); }
  SPRUN_INLINE static Raw high16(Raw a, Raw b) { return _mm_unpackhi_epi16(a, b); }
  SPRUN_INLINE static void store(void* p, Raw v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }
  SPRUN_INLINE static Raw even16(Raw a, Raw b) {
    return odd16(_mm_slli_epi32(a, 16), _mm_slli_epi32(b, 16));
  }
  SPRUN_INLINE static Raw odd16(Raw a, Raw b) {
    return _mm_packs_epi32(_mm_srai_epi32(a, 16), _mm_srai_epi32(b, 16));
  }
  SPRUN_INLINE static Raw low32(Raw a, Raw b) { return _mm_unpacklo_epi32(a, b); }
  SPRUN_INLINE static Raw high32(Raw a, Raw b) { return _mm_unpackhi_epi32(a, b); }
  SPRUN_INLINE static Raw low64(Raw a, Raw b) { return _mm_unpacklo_epi64(a, b); }
  SPRUN_INLINE static Raw high64(Raw a, Raw b) { return _mm_unpackhi_epi64(a, b); }
  SPRUN_INLINE static Raw s16_of_s32(Raw a, Raw b) { return _mm_packs_epi32(a, b); }
  SPRUN_INLINE static Raw u8_of_s16(Raw a, Raw b) { return _mm_packus_epi16(a, b); }
  SPRUN_INLINE static Raw add16_sat(Raw a, Raw b) { return _mm_adds_epi16(a, b); }
  SPRUN_INLINE static Raw bits_xor(Raw a, Raw b) { return _mm_xor_si128(a, b); }
  SPRUN_INLINE static Raw broadcast8(uint8_t x) { return _mm_set1_epi8(static_cast<char>(x)); }
  SPRUN_INLINE static void store_lanes(uint8_t* p, int64_t, Raw v) {
    store(p, v);
  }
  SPRUN_INLINE static Raw in_order(Raw v) { return v; }
  SPRUN_INLINE static Raw turn4(Raw v) {
    const Raw ac = _mm_unpacklo_epi8(v, _mm_srli_si128(v, 8));  // t0k0 t2k0 t0k1 t2k1 .. t1k0 t3k0 ..
    return _mm_unpacklo_epi8(ac, _mm_srli_si128(ac, 8));
  }
};

#if defined(__AVX2__)
template <>
struct Interleave<Avx2> {
  using Raw = __m256i;
  SPRUN_INLINE static Raw load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  SPRUN_INLINE static Raw low8(Raw a, Raw b) { return _mm256_unpacklo_epi8(a, b); }
  SPRUN_INLINE static Raw high8(Raw a, Raw b) { return _mm256_unpackhi_epi8(a, b); }
  SPRUN_INLINE static Raw low16(Raw a, Raw b) { return _mm256_unpacklo_epi16(a, b); }
  SPRUN_INLINE static Raw high16(Raw a, Raw b) { return _mm256_unpackhi_epi16(a, b); }
  SPRUN_INLINE static void store(void* p, Raw v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
  SPRUN_INLINE static Raw even16(Raw a, Raw b) {
    return odd16(_mm256_slli_epi32(a, 16), _mm256_slli_epi32(b, 16));
  }
  SPRUN_INLINE static Raw odd16(Raw a, Raw b) {
    return _mm256_packs_epi32(_mm256_srai_epi32(a, 16), _mm256_srai_epi32(b, 16));
  }
  SPRUN_INLINE static Raw low32(Raw a, Raw b) { return _mm256_unpacklo_epi32(a, b); }
  SPRUN_INLINE static Raw high32(Raw a, Raw b) { return _mm256_unpackhi_epi32(a, b); }
  SPRUN_INLINE static Raw low64(Raw a, Raw b) { return _mm256_unpacklo_epi64(a, b); }
  SPRUN_INLINE static Raw high64(Raw a, Raw b) { return _mm256_unpackhi_epi64(a, b); }
  SPRUN_INLINE static Raw s16_of_s32(Raw a, Raw b) { return _mm256_packs_epi32(a, b); }
  SPRUN_INLINE static Raw u8_of_s16(Raw a, Raw b) { return _mm256_packus_epi16(a, b); }
  SPRUN_INLINE static Raw add16_sat(Raw a, Raw b) { return _mm256_adds_epi16(a, b); }
  SPRUN_INLINE static Raw bits_xor(Raw a, Raw b) { return _mm256_xor_si256(a, b); }
  SPRUN_INLINE static Raw broadcast8(uint8_t x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  SPRUN_INLINE static void store_lanes(uint8_t* p, int64_t stride, Raw v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(v));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + stride), _mm256_extracti128_si256(v, 1));
  }
  SPRUN_INLINE static Raw in_order(Raw v) {
    return _mm256_permutevar8x32_epi32(v, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  SPRUN_INLINE static Raw turn4(Raw v) {
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(order));
  }
};
#endif

#if defined(__AVX512BW__)
template <>
struct Interleave<Avx512> {
  using Raw = __m512i;
  SPRUN_INLINE static Raw load(const void* p) { return _mm512_loadu_si512(p); }
  SPRUN_INLINE static Raw low8(Raw a, Raw b) { return _mm512_unpacklo_epi8(a, b); }
  SPRUN_INLINE static Raw high8(Raw a, Raw b) { return _mm512_unpackhi_epi8(a, b); }
  SPRUN_INLINE static Raw low16(Raw a, Raw b) { return _mm512_unpacklo_epi16(a, b); }
  SPRUN_INLINE static Raw high16(Raw a, Raw b) { return _mm512_unpackhi_epi16(a, b); }
  SPRUN_INLINE static void store(void* p, Raw v) { _mm512_storeu_si512(p, v); }
  SPRUN_INLINE static Raw even16(Raw a, Raw b) {
    return odd16(_mm512_slli_epi32(a, 16), _mm512_slli_epi32(b, 16));
  }
  SPRUN_INLINE static Raw odd16(Raw a, Raw b) {
    return _mm512_packs_epi32(_mm512_srai_epi32(a, 16), _mm512_srai_epi32(b, 16));
  }
  SPRUN_INLINE static Raw low32(Raw a, Raw b) { return _mm512_unpacklo_epi32(a, b); }
  SPRUN_INLINE static Raw high32(Raw a, Raw b) { return _mm512_unpackhi_epi32(a, b); }
  SPRUN_INLINE static Raw low64(Raw a, Raw b) { return _mm512_unpacklo_epi64(a, b); }
  SPRUN_INLINE static Raw high64(Raw a, Raw b) { return _mm512_unpackhi_epi64(a, b); }
  SPRUN_INLINE static Raw s16_of_s32(Raw a, Raw b) { return _mm512_packs_epi32(a, b); }
  SPRUN_INLINE static Raw u8_of_s16(Raw a, Raw b) { return _mm512_packus_epi16(a, b); }
  SPRUN_INLINE static Raw add16_sat(Raw a, Raw b) { return _mm512_adds_epi16(a, b); }
  SPRUN_INLINE static Raw bits_xor(Raw a, Raw b) { return _mm512_xor_si512(a, b); }
  SPRUN_INLINE static Raw broadcast8(uint8_t x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  SPRUN_INLINE static void store_lanes(uint8_t* p, int64_t stride, Raw v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_castsi512_si128(v));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + stride), _mm512_extracti32x4_epi32(v, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 2 * stride), _mm512_extracti32x4_epi32(v, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 3 * stride), _mm512_extracti32x4_epi32(v, 3));
  }
  SPRUN_INLINE static Raw in_order(Raw v) {
    const Raw order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, v);
  }
  SPRUN_INLINE static Raw turn4(Raw v) {
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(order));
  }
};
#endif

// Dword vectors kFirst .. kFirst + kCount - 1 (of four) of rows a, b, c, d of bytes.
template <class VecArch, int kFirst, int kCount, class Raw = typename Interleave<VecArch>::Raw>
SPRUN_INLINE void quads(const uint8_t* a, const uint8_t* b, const uint8_t* c, const uint8_t* d,
                        Raw (&q)[kCount]) {
  using S = Interleave<VecArch>;
  static_assert(kFirst >= 0 && kFirst + kCount <= 4);
  const Raw va = S::load(a), vb = S::load(b), vc = S::load(c), vd = S::load(d);
  if constexpr (kFirst < 2) {
    const Raw ab = S::low8(va, vb), cd = S::low8(vc, vd);
    if constexpr (kFirst == 0) q[0] = S::low16(ab, cd);
    if constexpr (kFirst + kCount > 1) q[1 - kFirst] = S::high16(ab, cd);
  }
  if constexpr (kFirst + kCount > 2) {
    const Raw ab = S::high8(va, vb), cd = S::high8(vc, vd);
    if constexpr (kFirst <= 2) q[2 - kFirst] = S::low16(ab, cd);
    if constexpr (kFirst + kCount > 3) q[3 - kFirst] = S::high16(ab, cd);
  }
}

}  // namespace sprun::kernels::simd
