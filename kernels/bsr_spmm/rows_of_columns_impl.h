// Codes of BsrColumns back to rows: bytes are turned around, a quarter of the work of turning the floats before.
#pragma once

#include "kernels/bsr_spmm/token_lanes_impl.h"
#include "kernels/simd/interleave.h"

namespace sprun::kernels::bsr {

// In each 128-bit lane, 16 rows of 16 bytes become 16 columns.
template <class S>
SPRUN_INLINE void turn_bytes(typename S::Raw (&v)[16]) {
#pragma GCC unroll 4
  for (int stage = 0; stage < 4; ++stage) {  // each one shuffles the bytes of rows i and i + 8 into each other
    typename S::Raw next[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      next[2 * i] = S::low8(v[i], v[i + 8]);
      next[2 * i + 1] = S::high8(v[i], v[i + 8]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i] = next[i];
  }
}

// turned[4 v + e][16 L ..] = the codes of 16 outputs for token 16 v + 4 L + e. codes: 16 rows of 64 bytes.
template <class Arch>
SPRUN_INLINE void turn_codes(const uint8_t* codes, uint8_t (&turned)[16][64]) {
  using S = simd::Interleave<simd::VecArch<Arch>>;
  for (int at = 0; at < 64; at += static_cast<int>(sizeof(typename S::Raw))) {
    typename S::Raw v[16];
#pragma GCC unroll 16
    for (int n = 0; n < 16; ++n) v[n] = S::load(codes + 64 * n + at);
    turn_bytes<S>(v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) S::store(turned[i] + at, v[i]);
  }
}

// 16 outputs of 64 tokens, straight from registers.
template <class Arch>
SPRUN_INLINE void whole_rows_of_columns(const uint8_t* codes, uint8_t flip, uint8_t* y, int64_t ldy) {
  using S = simd::Interleave<simd::VecArch<Arch>>;
  const typename S::Raw flips = S::broadcast8(flip);
  for (int at = 0; at < 64; at += static_cast<int>(sizeof(typename S::Raw))) {
    typename S::Raw v[16];
#pragma GCC unroll 16
    for (int n = 0; n < 16; ++n) v[n] = S::load(codes + 64 * n + at);
    turn_bytes<S>(v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      S::store_lanes(y + (16 * (i / 4) + i % 4 + at / 4) * ldy, 4 * ldy, S::bits_xor(v[i], flips));
    }
  }
}

template <class Arch>
void rows_of_columns(const uint8_t* codes, int64_t outputs, int64_t tokens, uint8_t flip, uint8_t* y, int64_t ldy) {
  alignas(64) uint8_t turned[16][64];
  alignas(64) uint8_t last[16 * 64] = {};
  for (int64_t n = 0; n < outputs; n += 16, codes += 16 * 64) {
    const int64_t cols = min_of(16, outputs - n);
    if (cols == 16 && tokens == 64) {
      whole_rows_of_columns<Arch>(codes, flip, y + n, ldy);
      continue;
    }
    if (cols < 16) __builtin_memcpy(last, codes, static_cast<size_t>(cols * 64));
    turn_codes<Arch>(cols < 16 ? last : codes, turned);
    if (flip != 0) {
      for (uint8_t(&row)[64] : turned) {
        for (uint8_t& code : row) code ^= flip;
      }
    }
    for (int64_t t = 0; t < tokens; ++t) {
      const uint8_t* from = turned[t / 16 * 4 + t % 4] + t % 16 / 4 * 16;
      if (cols == 16) __builtin_memcpy(y + t * ldy + n, from, 16);
      else __builtin_memcpy(y + t * ldy + n, from, static_cast<size_t>(cols));
    }
  }
}

}  // namespace sprun::kernels::bsr
