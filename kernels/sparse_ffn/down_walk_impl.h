// Down products of int8 rows with one or two rows of h, in the order in which memory gives gathered
// rows fastest; instantiated per Arch by sparse_ffn_u8s8_<isa>.cc.
//
// Eight rows of weights are walked line by line from both ends to the middle, and so are the rows
// that are fetched meanwhile: 33 against 25 GB/s from one end (Zen 5, a core that streams 41 GB/s,
// 8 % of rows of 2,304 bytes, reading alone). Likely, not shown: what prefetchers of the core read
// past a line is then part of the same row. Sums lie in a cache, in the order of the
// interleaved vectors until all rows are done. Outputs are cut into parts whose sums and rows a
// first-level cache holds together. For vectors of 64 bytes; narrower ones are faster with sums in
// registers.
#pragma once

#include "kernels/simd/dot4.h"
#include "kernels/sparse_ffn/rows_impl.h"

namespace sprun::kernels::sparse_ffn {

// Sums of four interleaved vectors (interleave.h) from their order into that of the outputs.
SPRUN_INLINE void natural_order(simd::I32<simd::Sse2> (&)[4]) {}
#if defined(__AVX2__)
SPRUN_INLINE void natural_order(simd::I32<simd::Avx2> (&q)[4]) {
  const __m256i a = _mm256_permute2x128_si256(q[0].v, q[1].v, 0x20);
  const __m256i b = _mm256_permute2x128_si256(q[2].v, q[3].v, 0x20);
  const __m256i c = _mm256_permute2x128_si256(q[0].v, q[1].v, 0x31);
  const __m256i d = _mm256_permute2x128_si256(q[2].v, q[3].v, 0x31);
  q[0].v = a;
  q[1].v = b;
  q[2].v = c;
  q[3].v = d;
}
#endif
#if defined(__AVX512F__)
// Rows and columns of a 4 by 4 matrix of 128-bit lanes change places: its own inverse.
SPRUN_INLINE void natural_order(simd::I32<simd::Avx512> (&q)[4]) {
  const __m512i a = _mm512_shuffle_i32x4(q[0].v, q[1].v, 0x44);
  const __m512i b = _mm512_shuffle_i32x4(q[2].v, q[3].v, 0x44);
  const __m512i c = _mm512_shuffle_i32x4(q[0].v, q[1].v, 0xee);
  const __m512i d = _mm512_shuffle_i32x4(q[2].v, q[3].v, 0xee);
  q[0].v = _mm512_shuffle_i32x4(a, b, 0x88);
  q[1].v = _mm512_shuffle_i32x4(a, b, 0xdd);
  q[2].v = _mm512_shuffle_i32x4(c, d, 0x88);
  q[3].v = _mm512_shuffle_i32x4(c, d, 0xdd);
}
#endif

template <class Arch, int kTok>
struct DownWalk {
  using Dot = simd::Dot4<Arch>;
  using I = typename Dot::Acc;
  using Lanes = simd::Interleave<simd::VecArch<Arch>>;
  using Raw = typename Lanes::Raw;
  static constexpr int64_t kLine = 64;
  static constexpr int64_t kBytes = sizeof(Raw);
  static constexpr int64_t kPart = 2560;  // outputs
  static constexpr int64_t kAhead = 16;    // rows

  // Rows of weights at the first output of a part, and those to fetch.
  template <int kFours>
  struct Group {
    const uint8_t* row[kFours * kFfnGroup];
    const char* next[kFours * kFfnGroup];
    typename Dot::A codes[kFours][kTok];
  };

  // Outputs [n, n + kBytes) of a part.
  template <int kFours>
  SPRUN_INLINE static void block(const Group<kFours>& g, int32_t* acc, int64_t ld_acc, int64_t n) {
    I sum[kTok][4];
#pragma GCC unroll 8
    for (int i = 0; i < 4 * kTok; ++i) {
      sum[i / 4][i % 4] = I::load(acc + i / 4 * ld_acc + n + i % 4 * I::kLanes);
    }
#pragma GCC unroll 2
    for (int q = 0; q < kFours; ++q) {
      const uint8_t* const* row = g.row + q * kFfnGroup;
      Raw raw[4];
      simd::quads<simd::VecArch<Arch>, 0, 4>(row[0] + n, row[1] + n, row[2] + n, row[3] + n, raw);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        const auto w = Dot::from_s8(raw[v]);
#pragma GCC unroll 2
        for (int t = 0; t < kTok; ++t) Dot::accumulate(sum[t][v], g.codes[q][t], w);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < 4 * kTok; ++i) {
      sum[i / 4][i % 4].store(acc + i / 4 * ld_acc + n + i % 4 * I::kLanes);
    }
  }

  template <int kFours>
  SPRUN_INLINE static void line(const Group<kFours>& g, int32_t* acc, int64_t ld_acc, int64_t n) {
#pragma GCC unroll 8
    for (int r = 0; r < kFours * kFfnGroup; ++r) fetch_far(g.next[r] + n);
#pragma GCC unroll 4
    for (int64_t b = 0; b < kLine; b += kBytes) block(g, acc, ld_acc, n + b);
  }

  // Rows at list places [i, i + 4 kFours), outputs [begin, end).
  template <int kFours>
  static void walk(const FfnDownArgs& a, int64_t i, int64_t begin, int64_t end) {
    Group<kFours> g;
#pragma GCC unroll 8
    for (int64_t r = 0; r < kFours * kFfnGroup; ++r) {
      const char* row = a.rows + a.ids[i + r] * a.stride_bytes + begin;
      g.row[r] = reinterpret_cast<const uint8_t*>(row);
      g.next[r] = next_row(a, i + r, begin, end);
    }
    const uint8_t* h = static_cast<const uint8_t*>(a.h) + i;
#pragma GCC unroll 4
    for (int c = 0; c < kFours * kTok; ++c) {
      const uint8_t* quad = h + c % kTok * a.ld_h + c / kTok * kFfnGroup;
      g.codes[c / kTok][c % kTok] = Dot::broadcast(simd::load_quad(quad));
    }
    int32_t* acc = static_cast<int32_t*>(a.acc) + begin;
    int64_t n = 0;
    int64_t back = end - begin - kLine;
    for (; n < back; n += kLine, back -= kLine) {
      line(g, acc, a.ld_acc, n);
      line(g, acc, a.ld_acc, back);
    }
    if (n == back) line(g, acc, a.ld_acc, n);
  }

  // Rows kAhead places on; past the listed ones, the first rows of the next part if there is one.
  SPRUN_INLINE static const char* next_row(const FfnDownArgs& a, int64_t i, int64_t begin,
                                           int64_t end) {
    const int64_t ahead = i + kAhead;
    if (end < a.n && ahead >= a.count) {
      const int64_t again = ahead - a.count < a.count ? ahead - a.count : a.count - 1;
      return a.rows + a.ids[again] * a.stride_bytes + end;
    }
    if (ahead < a.count) return a.rows + a.ids[ahead] * a.stride_bytes + begin;
    return a.rows + a.ids[ahead < a.listed ? ahead : i] * a.stride_bytes;
  }

  static void reorder(int32_t* acc, int64_t ld_acc, int64_t outputs) {
    for (int t = 0; t < kTok; ++t) {
      for (int64_t n = 0; n < outputs; n += kBytes) {
        int32_t* at = acc + t * ld_acc + n;
        I q[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) q[v] = I::load(at + v * I::kLanes);
        natural_order(q);
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) q[v].store(at + v * I::kLanes);
      }
    }
  }

  static void down(const FfnDownArgs& a) {
    const int64_t parts = (a.n + kPart - 1) / kPart;
    const int64_t size = (a.n / kLine + parts - 1) / parts * kLine;
    for (int64_t begin = 0; begin < a.n; begin += size) {
      const int64_t end = begin + size < a.n ? begin + size : a.n;
      int32_t* acc = static_cast<int32_t*>(a.acc) + begin;
      reorder(acc, a.ld_acc, end - begin);
      int64_t i = 0;
      for (; i + 2 * kFfnGroup <= a.count; i += 2 * kFfnGroup) walk<2>(a, i, begin, end);
      if (i < a.count) walk<1>(a, i, begin, end);
      reorder(acc, a.ld_acc, end - begin);
    }
  }
};

}  // namespace sprun::kernels::sparse_ffn
