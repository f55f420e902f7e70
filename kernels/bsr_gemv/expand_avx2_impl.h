// AVX2: one chunk of one output from its compressed form to registers, in the order of inputs.
// Positions go through tables of shuffles, one entry for 8 bits of a bitmap.
#pragma once

#include <immintrin.h>

#include "kernels/bsr_gemv/expand_impl.h"

namespace sprun::kernels::gemv {

// Entry m: for i < 8, the number of set bits of m below i if bit i is set, else `unset`.
struct RankTableAvx2 {
  uint8_t entry[256][8];
};
constexpr RankTableAvx2 make_rank_table_avx2(uint8_t unset) {
  RankTableAvx2 t{};
  for (unsigned m = 0; m < 256; ++m) {
    uint8_t rank = 0;
    for (unsigned i = 0; i < 8; ++i) t.entry[m][i] = ((m >> i) & 1U) != 0 ? rank++ : unset;
  }
  return t;
}
// For pshufb, where 0x80 gives 0, and for vpermd, where lane 7 is 0 unless all eight are stored.
alignas(64) inline constexpr RankTableAvx2 kBytesAvx2 = make_rank_table_avx2(0x80);
alignas(64) inline constexpr RankTableAvx2 kQuadsAvx2 = make_rank_table_avx2(7);

template <class Arch>
struct Expand<Arch, simd::Avx2> {
  using Reg = __m256i;
  static constexpr int kByteParts = 2;
  static constexpr int kWordParts = 4;

  template <GemvFormat>
  static constexpr bool has_narrow() {
    return false;
  }

  template <GemvFormat kFormat, bool kNarrow>
  SPRUN_INLINE static void bytes(const uint8_t* index, int row, const uint8_t*& values, Reg* w) {
    if constexpr (kFormat == GemvFormat::kBitmap) {
      const auto mask = load_index<uint64_t>(index, row);
#pragma GCC unroll 2
      for (int i = 0; i < kByteParts; ++i) {
        const __m128i low = bitmap16(mask >> (32 * i), values);
        w[i] = join(low, bitmap16(mask >> (32 * i + 16), values));
      }
    } else if constexpr (kFormat == GemvFormat::kQuads) {
      const uint32_t mask = load_index<uint16_t>(index, row);
      w[0] = quads(mask & 0xffU, values);
      w[1] = quads(mask >> 8, values);
    } else {
      kept(index, row, values, w);
      if constexpr (kFormat == GemvFormat::kTwoOfFour) {
        Reg second[2];
        kept(index + 16, row, values, second);
        w[0] = _mm256_or_si256(w[0], second[0]);
        w[1] = _mm256_or_si256(w[1], second[1]);
      }
    }
  }

  template <bool kNarrow>
  SPRUN_INLINE static void words(const uint8_t* index, int row, const uint8_t*& values, Reg* w) {
    const auto mask = load_index<uint64_t>(index, row);
#pragma GCC unroll 4
    for (int i = 0; i < kWordParts; ++i) {
      const __m128i low = bitmap8(mask >> (16 * i), values);
      w[i] = join(low, bitmap8(mask >> (16 * i + 8), values));
    }
  }

 private:
  SPRUN_INLINE static Reg join(__m128i low, __m128i high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
  }
  SPRUN_INLINE static __m128i load8(const uint8_t* p) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  }
  // 16 bytes by the lower 16 bits of `mask`: 8 from each half of the loaded vector.
  SPRUN_INLINE static __m128i bitmap16(uint64_t mask, const uint8_t*& values) {
    const uint64_t m0 = mask & 0xffU;
    const uint64_t m1 = (mask >> 8) & 0xffU;
    const uint8_t* second = values + _mm_popcnt_u64(m0);
    const __m128i v = _mm_unpacklo_epi64(load8(values), load8(second));
    values = second + _mm_popcnt_u64(m1);
    const __m128i order =
        _mm_unpacklo_epi64(load8(kBytesAvx2.entry[m0]), load8(kBytesAvx2.entry[m1]));
    return _mm_shuffle_epi8(v, _mm_add_epi8(order, _mm_set_epi64x(0x0808080808080808, 0)));
  }
  // 8 words by the lower 8 bits of `mask`. Byte r becomes 2 r, 2 r + 1; 0x80 saturates, still a 0.
  SPRUN_INLINE static __m128i bitmap8(uint64_t mask, const uint8_t*& values) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
    values += 2 * _mm_popcnt_u64(mask & 0xffU);
    const __m128i rank = load8(kBytesAvx2.entry[mask & 0xffU]);
    const __m128i twice = _mm_unpacklo_epi8(rank, rank);
    const __m128i order = _mm_or_si128(_mm_adds_epu8(twice, twice), _mm_set1_epi16(0x0100));
    return _mm_shuffle_epi8(v, order);
  }
  SPRUN_INLINE static Reg quads(uint32_t mask, const uint8_t*& values) {
    const int64_t count = _mm_popcnt_u32(mask);
    const __m256i v =
        _mm256_maskload_epi32(reinterpret_cast<const int*>(values), simd::avx2_mask(count));
    values += 4 * count;
    return _mm256_permutevar8x32_epi32(v, _mm256_cvtepu8_epi32(load8(kQuadsAvx2.entry[mask])));
  }
  // One weight per quad, moved to its byte by the two bits of its position.
  SPRUN_INLINE static void kept(const uint8_t* index, int row, const uint8_t*& values, Reg* w) {
    const Reg low = twice(load_index<uint16_t>(index, row));
    const Reg high = twice(load_index<uint16_t>(index, kGemvGroup + row));
    const Reg lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    w[0] = move(load8(values), low, high, lane);
    w[1] = move(load8(values + 8), low, high, _mm256_add_epi32(lane, _mm256_set1_epi32(8)));
    values += 16;
  }
  // Both halves of every dword, so that any of the 16 bits can be shifted right to bit 3 or 4.
  SPRUN_INLINE static Reg twice(uint16_t bits) {
    return _mm256_set1_epi16(static_cast<int16_t>(bits));
  }
  SPRUN_INLINE static Reg move(__m128i bytes8, Reg low, Reg high, Reg lane) {
    const Reg to3 = _mm256_add_epi32(lane, _mm256_set1_epi32(16 - 3));
    const Reg to4 = _mm256_add_epi32(lane, _mm256_set1_epi32(16 - 4));
    const Reg by8 = _mm256_and_si256(_mm256_srlv_epi32(low, to3), _mm256_set1_epi32(8));
    const Reg by16 = _mm256_and_si256(_mm256_srlv_epi32(high, to4), _mm256_set1_epi32(16));
    return _mm256_sllv_epi32(_mm256_cvtepu8_epi32(bytes8), _mm256_or_si256(by8, by16));
  }
};

// Lane i of the result: the sum of all lanes of the i-th argument.
SPRUN_INLINE __m128i sum4(simd::I32<simd::Avx2> a, simd::I32<simd::Avx2> b,
                          simd::I32<simd::Avx2> c, simd::I32<simd::Avx2> d) {
  const __m256i s = _mm256_hadd_epi32(_mm256_hadd_epi32(a.v, b.v), _mm256_hadd_epi32(c.v, d.v));
  return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}

SPRUN_INLINE __m128 sum4(simd::F32<simd::Avx2> a, simd::F32<simd::Avx2> b, simd::F32<simd::Avx2> c,
                         simd::F32<simd::Avx2> d) {
  const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a.v, b.v), _mm256_hadd_ps(c.v, d.v));
  return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

}  // namespace sprun::kernels::gemv
