// Square register transposes for strided_copy: kBlock x kBlock elements at a time, SSE2 (the x86-64 baseline).
//
// TransposeBlock<T>::run(src, src_stride, dst, dst_stride): dst[j * dst_stride + i] = src[i * src_stride + j]
// for 0 <= i, j < kBlock. Strides in elements, any alignment, no overlap.
#pragma once

#include <emmintrin.h>

#include <cstdint>
#include <cstring>

namespace sprun::kernels {

// An element of 16 bytes: a pair of doubles, four floats moved as one.
struct alignas(1) Wide16 {
  unsigned char bytes[16];
};

inline __m128i load16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline void store16(void* p, __m128i v) { _mm_storeu_si128(static_cast<__m128i*>(p), v); }
inline __m128i load8(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
inline void store8_low(void* p, __m128i v) { _mm_storel_epi64(static_cast<__m128i*>(p), v); }
inline void store8_high(void* p, __m128i v) { store8_low(p, _mm_unpackhi_epi64(v, v)); }

template <class T>
struct TransposeBlock {
  static constexpr int kBlock = 1;
  static void run(const T* src, int64_t, T* dst, int64_t) { std::memcpy(dst, src, sizeof(T)); }
};

template <>
struct TransposeBlock<uint64_t> {
  static constexpr int kBlock = 2;
  static void run(const uint64_t* src, int64_t src_stride, uint64_t* dst, int64_t dst_stride) {
    const __m128i a = load16(src), b = load16(src + src_stride);
    store16(dst, _mm_unpacklo_epi64(a, b));
    store16(dst + dst_stride, _mm_unpackhi_epi64(a, b));
  }
};

template <>
struct TransposeBlock<uint32_t> {
  static constexpr int kBlock = 4;
  static void run(const uint32_t* src, int64_t src_stride, uint32_t* dst, int64_t dst_stride) {
    const __m128i a = load16(src), b = load16(src + src_stride);
    const __m128i c = load16(src + 2 * src_stride), d = load16(src + 3 * src_stride);
    const __m128i ab_low = _mm_unpacklo_epi32(a, b), ab_high = _mm_unpackhi_epi32(a, b);
    const __m128i cd_low = _mm_unpacklo_epi32(c, d), cd_high = _mm_unpackhi_epi32(c, d);
    store16(dst, _mm_unpacklo_epi64(ab_low, cd_low));
    store16(dst + dst_stride, _mm_unpackhi_epi64(ab_low, cd_low));
    store16(dst + 2 * dst_stride, _mm_unpacklo_epi64(ab_high, cd_high));
    store16(dst + 3 * dst_stride, _mm_unpackhi_epi64(ab_high, cd_high));
  }
};

template <>
struct TransposeBlock<uint16_t> {
  static constexpr int kBlock = 8;
  static void run(const uint16_t* src, int64_t src_stride, uint16_t* dst, int64_t dst_stride) {
    __m128i rows[8], pairs[8], quads[8];
    for (int i = 0; i < 8; ++i) rows[i] = load16(src + i * src_stride);
    for (int i = 0; i < 4; ++i) {
      pairs[2 * i] = _mm_unpacklo_epi16(rows[2 * i], rows[2 * i + 1]);
      pairs[2 * i + 1] = _mm_unpackhi_epi16(rows[2 * i], rows[2 * i + 1]);
    }
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 2; ++i) {
        quads[4 * half + 2 * i] = _mm_unpacklo_epi32(pairs[4 * half + i], pairs[4 * half + 2 + i]);
        quads[4 * half + 2 * i + 1] = _mm_unpackhi_epi32(pairs[4 * half + i], pairs[4 * half + 2 + i]);
      }
    }
    for (int i = 0; i < 4; ++i) {
      store16(dst + 2 * i * dst_stride, _mm_unpacklo_epi64(quads[i], quads[4 + i]));
      store16(dst + (2 * i + 1) * dst_stride, _mm_unpackhi_epi64(quads[i], quads[4 + i]));
    }
  }
};

template <>
struct TransposeBlock<uint8_t> {
  static constexpr int kBlock = 8;
  static void run(const uint8_t* src, int64_t src_stride, uint8_t* dst, int64_t dst_stride) {
    __m128i pairs[4];
    for (int i = 0; i < 4; ++i) {
      pairs[i] = _mm_unpacklo_epi8(load8(src + 2 * i * src_stride), load8(src + (2 * i + 1) * src_stride));
    }
    const __m128i top_low = _mm_unpacklo_epi16(pairs[0], pairs[1]), top_high = _mm_unpackhi_epi16(pairs[0], pairs[1]);
    const __m128i end_low = _mm_unpacklo_epi16(pairs[2], pairs[3]), end_high = _mm_unpackhi_epi16(pairs[2], pairs[3]);
    const __m128i columns[4] = {_mm_unpacklo_epi32(top_low, end_low), _mm_unpackhi_epi32(top_low, end_low),
                                _mm_unpacklo_epi32(top_high, end_high), _mm_unpackhi_epi32(top_high, end_high)};
    for (int i = 0; i < 4; ++i) {
      store8_low(dst + 2 * i * dst_stride, columns[i]);
      store8_high(dst + (2 * i + 1) * dst_stride, columns[i]);
    }
  }
};

}  // namespace sprun::kernels
