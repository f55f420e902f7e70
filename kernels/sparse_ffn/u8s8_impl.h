// Products of int8 rows with codes, four neurons at a time, instantiated per Arch by
// sparse_ffn_u8s8_<isa>.cc.
//
// Up: dot_impl.h. Down: four rows are interleaved byte by byte, so that one dot product of four adds
// four neurons to as many outputs as there are lanes; for one or two rows of h and AVX-512
// down_walk_impl.h, else outputs outer, neurons inner, sums in registers.
#pragma once

#include "kernels/simd/dot4.h"
#include "kernels/sparse_ffn/dot_impl.h"
#include "kernels/sparse_ffn/down_walk_impl.h"
#include "kernels/sparse_ffn/rows_impl.h"

namespace sprun::kernels::sparse_ffn {

// Rows of x or h per pass: their sums stay in registers.
template <class Arch>
inline constexpr int kU8S8Tokens = 1;
template <>
inline constexpr int kU8S8Tokens<simd::AvxVnni> = 2;
template <>
inline constexpr int kU8S8Tokens<simd::Avx512> = 3;
template <>
inline constexpr int kU8S8Tokens<simd::Avx512Vnni> = 4;

template <class Arch>
inline constexpr int kU8S8DownTokens = kU8S8Tokens<Arch>;
template <>
inline constexpr int kU8S8DownTokens<simd::Avx512Vnni> = 6;

template <class Arch>
struct U8S8Ops {
  using T = uint8_t;
  using Sum = int32_t;
  using Dot = simd::Dot4<Arch>;
  using V = typename Dot::Acc;
  using A = typename Dot::A;
  using B = typename Dot::B;
  using Lanes = simd::Interleave<simd::VecArch<Arch>>;
  static constexpr int64_t kStep = sizeof(typename Lanes::Raw);
  SPRUN_INLINE static A x(const T* p) { return Dot::from_u8(Lanes::load(p)); }
  SPRUN_INLINE static B w(const T* p) { return Dot::from_s8(Lanes::load(p)); }
  SPRUN_INLINE static void accumulate(V& acc, A a, B b) { Dot::accumulate(acc, a, b); }
};

template <class Arch>
struct U8S8 {
  using Dot = simd::Dot4<Arch>;
  using I = typename Dot::Acc;
  using Lanes = simd::Interleave<simd::VecArch<Arch>>;
  using Raw = typename Lanes::Raw;
  static constexpr int64_t kBytes = sizeof(Raw);
  static constexpr int kDownTokens = kU8S8DownTokens<Arch>;

  // acc[t0 + t, n ...] += h * rows for kBlocks blocks of kBytes outputs from n.
  template <int kTok, int kBlocks, bool kFetch>
  static void down_block(const FfnDownArgs& a, const DownRows& rows, int64_t begin, int64_t count,
                         int64_t t0, int64_t n) {
    const uint8_t* h = static_cast<const uint8_t*>(a.h) + t0 * a.ld_h + begin;
    I acc[kTok][kBlocks][4];
#pragma GCC unroll 8
    for (int t = 0; t < kTok; ++t) {
#pragma GCC unroll 16
      for (int v = 0; v < 4 * kBlocks; ++v) acc[t][v / 4][v % 4] = I::zero();
    }
    int64_t i = 0;
    do {  // as in DotRows
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) {
        const int64_t at = n + b * kBytes;
        if constexpr (kFetch) {
#pragma GCC unroll 4
          for (int r = 0; r < kFfnGroup; ++r) fetch(rows.next[i + r] + at);
        }
        const auto row = [&](int64_t r) __attribute__((always_inline)) {
          return reinterpret_cast<const uint8_t*>(rows.row[i + r] + at);
        };
        Raw q[4];
        simd::quads<simd::VecArch<Arch>, 0, 4>(row(0), row(1), row(2), row(3), q);
        typename Dot::B w[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) w[v] = Dot::from_s8(q[v]);
#pragma GCC unroll 8
        for (int t = 0; t < kTok; ++t) {
          const auto codes = Dot::broadcast(simd::load_quad(h + t * a.ld_h + i));
#pragma GCC unroll 4
          for (int v = 0; v < 4; ++v) Dot::accumulate(acc[t][b][v], codes, w[v]);
        }
      }
      i += kFfnGroup;
      asm("" : "+r"(i));
    } while (i < count);
#pragma GCC unroll 8
    for (int t = 0; t < kTok; ++t) {
      int32_t* out = static_cast<int32_t*>(a.acc) + (t0 + t) * a.ld_acc + n;
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) {
        natural_order(acc[t][b]);
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) {
          int32_t* to = out + b * kBytes + v * I::kLanes;
          (I::load(to) + acc[t][b][v]).store(to);
        }
      }
    }
  }

  using DownFn = void(const FfnDownArgs&, const DownRows&, int64_t, int64_t, int64_t, int64_t);
  template <int kTok, bool kFetch>
  static constexpr DownFn* kDownAt = down_block<(kTok <= kDownTokens ? kTok : 1), 1, kFetch>;
  template <bool kFetch>
  static constexpr DownFn* kDown[6] = {kDownAt<1, kFetch>, kDownAt<2, kFetch>, kDownAt<3, kFetch>,
                                       kDownAt<4, kFetch>, kDownAt<5, kFetch>, kDownAt<6, kFetch>};

  static void down_many(const FfnDownArgs& a, const DownRows& rows, int64_t begin, int64_t count) {
    const int64_t passes = (a.rows_of_h + kDownTokens - 1) / kDownTokens;
    for (int64_t n = 0; n < a.n; n += kBytes) {
      for (int64_t p = 0; p < passes; ++p) {
        const int64_t t0 = p * a.rows_of_h / passes;
        const int64_t tokens = (p + 1) * a.rows_of_h / passes - t0;
        (p == 0 ? kDown<true> : kDown<false>)[tokens - 1](a, rows, begin, count, t0, n);
      }
    }
  }

  static void down(const FfnDownArgs& a) {
    if constexpr (kBytes == 64) {
      if (a.rows_of_h == 1) return DownWalk<Arch, 1>::down(a);
      if (a.rows_of_h == 2) return DownWalk<Arch, 2>::down(a);
    }
    const int64_t step = a.rows_of_h <= 2 ? kDownRows : kDownRowsMany;
    for (int64_t begin = 0; begin < a.count; begin += step) {
      const int64_t count = a.count - begin < step ? a.count - begin : step;
      const DownRows rows(a, begin, count, step);
      down_many(a, rows, begin, count);
    }
  }

  // ---- one token's list
  template <int kBlocks>
  SPRUN_INLINE static void add_rows(const FfnListArgs& a, int64_t begin, int64_t end, int64_t n,
                                    I (&acc)[kBlocks][4]) {
    const uint8_t* h = static_cast<const uint8_t*>(a.h);
    for (int64_t i = begin; i < end; i += kFfnGroup) {
      const uint8_t* rows[kFfnGroup];
#pragma GCC unroll 4
      for (int64_t r = 0; r < kFfnGroup; ++r) {
        rows[r] = reinterpret_cast<const uint8_t*>(a.rows) + a.ids[i + r] * a.stride_bytes + n;
      }
      const auto codes = Dot::broadcast(simd::load_quad(h + i));
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) {
        const int64_t at = b * kBytes;
        Raw q[4];
        simd::quads<simd::VecArch<Arch>, 0, 4>(rows[0] + at, rows[1] + at, rows[2] + at,
                                               rows[3] + at, q);
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) Dot::accumulate(acc[b][v], codes, Dot::from_s8(q[v]));
      }
    }
  }

  template <int kBlocks>
  static void list_block(const FfnListArgs& a, int64_t n) {
    I acc[kBlocks][4];
#pragma GCC unroll 16
    for (int v = 0; v < 4 * kBlocks; ++v) acc[v / 4][v % 4] = I::zero();
    if (a.negative > 0) {
      add_rows<kBlocks>(a, 0, a.negative, n, acc);
#pragma GCC unroll 16
      for (int v = 0; v < 4 * kBlocks; ++v) acc[v / 4][v % 4] = I::zero() - acc[v / 4][v % 4];
    }
    add_rows<kBlocks>(a, a.negative, a.count, n, acc);
    int32_t* out = static_cast<int32_t*>(a.acc) + n;
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) {
      natural_order(acc[b]);
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        int32_t* to = out + b * kBytes + v * I::kLanes;
        (a.add ? I::load(to) + acc[b][v] : acc[b][v]).store(to);
      }
    }
  }

  // Sums of a whole list stay in registers.
  static void down_list(const FfnListArgs& a) {
    constexpr int kBlocks = kBytes == 64 ? 4 : 1;
    int64_t n = 0;
    for (; n + kBlocks * kBytes <= a.n; n += kBlocks * kBytes) list_block<kBlocks>(a, n);
    for (; n < a.n; n += kBytes) list_block<1>(a, n);
  }
};

template <class Arch>
inline constexpr SparseFfnKernel kU8S8 = {nullptr,
                                          Rows<Arch>::sparsify,
                                          DotRows<U8S8Ops<Arch>, kU8S8Tokens<Arch>>::dot,
                                          Rows<Arch>::template hidden<int32_t>,
                                          U8S8<Arch>::down,
                                          U8S8<Arch>::down_list,
                                          Rows<Arch>::out};

}  // namespace sprun::kernels::sparse_ffn
