// AVX-512: one chunk of one output from its compressed form to registers, in the order of inputs.
#pragma once

#include <immintrin.h>

#include "kernels/bsr_gemv/expand_impl.h"

namespace sprun::kernels::gemv {

// The values of one output and chunk: 64 bytes, or 32 with the rest undefined when that is enough.
// A load of 32 bytes crosses a cache line half as often: 2.0 cycles a chunk instead of 2.5 to 2.8.
template <bool kNarrow>
SPRUN_INLINE __m512i load_values(const uint8_t* p) {
  if constexpr (!kNarrow) return _mm512_loadu_si512(p);
  return _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// What an expansion merges into. Zen 5 makes expansions wait for the register that they write, with
// zeroing masks too (5 cycles instead of 1, measured 2026-11): a register zeroed just before is
// ready. The empty asm keeps the compiler from turning the merge back into a zeroing mask.
SPRUN_INLINE __m512i fresh_zero() {
  __m512i zero = _mm512_setzero_si512();
  asm("" : "+v"(zero));
  return zero;
}

// 16 bytes, widened to dwords, spread over the set bits of the lower 16 of `mask`; advances.
SPRUN_INLINE __m512i spread_bytes(uint64_t mask, const uint8_t*& values) {
  const auto m = static_cast<__mmask16>(mask);
  const __m512i v =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
  values += _mm_popcnt_u32(m);
  return _mm512_mask_expand_epi32(fresh_zero(), m, v);
}

// The same for 16 words.
SPRUN_INLINE __m512i spread_words(uint32_t mask, const uint8_t*& values) {
  const auto m = static_cast<__mmask16>(mask);
  const __m512i v =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
  values += 2 * _mm_popcnt_u32(m);
  return _mm512_mask_expand_epi32(fresh_zero(), m, v);
}

// Without VBMI2 only dwords can be expanded: input 16 j + i goes to byte j of dword i, and two
// shuffles, a 4 x 4 transpose of bytes in each lane and one of dwords, bring all to their place.
template <class Arch>
struct BitmapExpand512 {
  static constexpr bool kNarrowIsFaster = false;
  template <bool kNarrow>
  SPRUN_INLINE static __m512i bytes(uint64_t mask, const uint8_t*& values) {
    const __m512i kTransposeBytes = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m512i kTransposeDwords =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i w = spread_bytes(mask, values);
    w = _mm512_or_si512(w, _mm512_slli_epi32(spread_bytes(mask >> 16, values), 8));
    w = _mm512_or_si512(w, _mm512_slli_epi32(spread_bytes(mask >> 32, values), 16));
    w = _mm512_or_si512(w, _mm512_slli_epi32(spread_bytes(mask >> 48, values), 24));
    return _mm512_permutexvar_epi32(kTransposeDwords, _mm512_shuffle_epi8(w, kTransposeBytes));
  }
  template <bool kNarrow>
  SPRUN_INLINE static __m512i words(uint32_t mask, const uint8_t*& values) {
    const __m512i kUnzip = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3,
                                            1, 30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4,
                                            2, 0);
    __m512i w = spread_words(mask, values);
    w = _mm512_or_si512(w, _mm512_slli_epi32(spread_words(mask >> 16, values), 16));
    return _mm512_permutexvar_epi16(kUnzip, w);
  }
};

#if defined(__AVX512VBMI2__)
struct BitmapExpandVbmi2 {
  static constexpr bool kNarrowIsFaster = true;
  template <bool kNarrow>
  SPRUN_INLINE static __m512i bytes(uint64_t mask, const uint8_t*& values) {
    const __m512i v = load_values<kNarrow>(values);
    values += _mm_popcnt_u64(mask);
    return _mm512_mask_expand_epi8(fresh_zero(), mask, v);
  }
  template <bool kNarrow>
  SPRUN_INLINE static __m512i words(uint32_t mask, const uint8_t*& values) {
    const __m512i v = load_values<kNarrow>(values);
    values += 2 * _mm_popcnt_u32(mask);
    return _mm512_mask_expand_epi16(fresh_zero(), mask, v);
  }
};
template <>
struct BitmapExpand512<simd::Avx512Vbmi2> : BitmapExpandVbmi2 {};
template <>
struct BitmapExpand512<simd::Avx512Vbmi2Bf16> : BitmapExpandVbmi2 {};
#endif

template <class Arch>
struct Expand<Arch, simd::Avx512> {
  using Reg = __m512i;
  static constexpr int kByteParts = 1;  // registers per chunk of int8
  static constexpr int kWordParts = 2;  // ... of bf16

  template <GemvFormat kFormat>
  static constexpr bool has_narrow() {
    if (kFormat == GemvFormat::kBitmap) return BitmapExpand512<Arch>::kNarrowIsFaster;
    return kFormat == GemvFormat::kQuads;
  }

  template <GemvFormat kFormat, bool kNarrow>
  SPRUN_INLINE static void bytes(const uint8_t* index, int row, const uint8_t*& values, Reg* w) {
    if constexpr (kFormat == GemvFormat::kBitmap) {
      const auto mask = load_index<uint64_t>(index, row);
      w[0] = BitmapExpand512<Arch>::template bytes<kNarrow>(mask, values);
    } else if constexpr (kFormat == GemvFormat::kQuads) {
      // The bits of this row and those before it, at the top: their number is where the row ends.
      const uint64_t masks = load_index<uint64_t>(index, 0);
      const auto before = row == 0 ? 0 : _mm_popcnt_u64(masks << (64 - 16 * row));
      const __m512i v = load_values<kNarrow>(values + 4 * before);
      const auto mask = static_cast<__mmask16>(load_index<uint16_t>(index, row));
      w[0] = _mm512_mask_expand_epi32(fresh_zero(), mask, v);
      if (row == kGemvGroup - 1) values += 4 * _mm_popcnt_u64(masks);
    } else {
      w[0] = kept(index, row, values);
      if constexpr (kFormat == GemvFormat::kTwoOfFour) {
        w[0] = _mm512_or_si512(w[0], kept(index + 16, row, values));
      }
    }
  }

  template <bool kNarrow>
  SPRUN_INLINE static void words(const uint8_t* index, int row, const uint8_t*& values, Reg* w) {
    w[0] = BitmapExpand512<Arch>::template words<kNarrow>(load_index<uint32_t>(index, 2 * row),
                                                          values);
    w[1] = BitmapExpand512<Arch>::template words<kNarrow>(load_index<uint32_t>(index, 2 * row + 1),
                                                          values);
  }

 private:
  // One weight per quad, moved to its byte by the two bits of its position.
  SPRUN_INLINE static __m512i kept(const uint8_t* index, int row, const uint8_t*& values) {
    const auto low = static_cast<__mmask16>(load_index<uint16_t>(index, row));
    const auto high = static_cast<__mmask16>(load_index<uint16_t>(index, kGemvGroup + row));
    __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
    values += 16;
    v = _mm512_mask_slli_epi32(v, low, v, 8);
    return _mm512_mask_slli_epi32(v, high, v, 16);
  }
};

// Lane i of the result: the sum of all lanes of the i-th argument.
SPRUN_INLINE __m128i sum4(simd::I32<simd::Avx512> a, simd::I32<simd::Avx512> b,
                          simd::I32<simd::Avx512> c, simd::I32<simd::Avx512> d) {
  const __m512i ab =
      _mm512_add_epi32(_mm512_unpacklo_epi32(a.v, b.v), _mm512_unpackhi_epi32(a.v, b.v));
  const __m512i cd =
      _mm512_add_epi32(_mm512_unpacklo_epi32(c.v, d.v), _mm512_unpackhi_epi32(c.v, d.v));
  const __m512i s = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  const __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64(s, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}

SPRUN_INLINE __m128 sum4(simd::F32<simd::Avx512> a, simd::F32<simd::Avx512> b,
                         simd::F32<simd::Avx512> c, simd::F32<simd::Avx512> d) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a.v, b.v), _mm512_unpackhi_ps(a.v, b.v));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c.v, d.v), _mm512_unpackhi_ps(c.v, d.v));
  const __m512 s = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
  return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

}  // namespace sprun::kernels::gemv
