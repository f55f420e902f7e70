// u8 x s8 over compressed weights, instantiated per Arch by bsr_gemv_u8s8_<isa>.cc.
#pragma once

#include <type_traits>

#include "kernels/bsr_gemv/expand_impl.h"
#include "kernels/gemm/finish_u8s8_impl.h"
#if defined(__AVX512F__)
#include "kernels/bsr_gemv/expand_avx512_impl.h"
#else
#include "kernels/bsr_gemv/expand_avx2_impl.h"
#endif

namespace sprun::kernels::gemv {

// Rows of X per pass over a group: four sums per row stay in registers.
template <class Arch>
inline constexpr int kU8S8Rows = 2;
template <>
inline constexpr int kU8S8Rows<simd::Avx512> = 4;
template <>
inline constexpr int kU8S8Rows<simd::Avx512Vnni> = 6;
template <>
inline constexpr int kU8S8Rows<simd::Avx512Vbmi2> = 6;

template <class Arch>
struct U8S8 {
  using Dot = simd::Dot4<Arch>;
  using I = typename Dot::Acc;
  using E = Expand<Arch>;
  using Reg = typename E::Reg;
  static constexpr int kParts = E::kByteParts;
  static constexpr int kMaxRows = kU8S8Rows<Arch>;
  static constexpr int64_t kTile = kGemvPanel;  // outputs that the epilogue takes at once

  struct Group {
    const uint8_t* index;
    const uint8_t* wide;  // per span
    int64_t chunks;    // whole ones; their X is at `x`
    const uint8_t* x;  // first row
    int64_t ldx;
    const uint8_t* tail;  // X of one more chunk, rows kGemvChunk apart; null = none
  };

  // One chunk: acc[row][r] += X[r, chunk] * W[row, chunk].
  template <GemvFormat kFormat, bool kNarrow, int kRows>
  SPRUN_INLINE static void step(const uint8_t* index, const uint8_t*& values, const uint8_t* x,
                                int64_t ldx, I (&acc)[kGemvGroup][kRows]) {
    typename Dot::A a[kRows][kParts];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int p = 0; p < kParts; ++p) {
        Reg q;
        __builtin_memcpy(&q, x + r * ldx + p * static_cast<int64_t>(sizeof(Reg)), sizeof(Reg));
        a[r][p] = Dot::from_u8(q);
      }
    }
#pragma GCC unroll 4
    for (int row = 0; row < kGemvGroup; ++row) {
      Reg w[kParts];
      E::template bytes<kFormat, kNarrow>(index, row, values, w);
#pragma GCC unroll 2
      for (int p = 0; p < kParts; ++p) {
        const typename Dot::B b = Dot::from_s8(w[p]);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          acc[row][r] = Dot::add(acc[row][r], a[r][p], b);
          asm("" : "+v"(acc[row][r].v));  // keeps g++ 12 from copying every sum twice a step
        }
      }
    }
  }

  // sums[r * kTile + row] = X[r, :] * W[row, :] of one group; returns where its values end.
  template <GemvFormat kFormat, int kRows>
  static const uint8_t* group(const Group& g, const uint8_t* values, int32_t* sums) {
    constexpr int64_t kIndexStep = kGemvGroup * gemv_index_bytes(kFormat);
    I acc[kGemvGroup][kRows];
#pragma GCC unroll 4
    for (int row = 0; row < kGemvGroup; ++row) {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) acc[row][r] = I::zero();
    }
    const uint8_t* index = g.index;
    const uint8_t* x = g.x;
    const auto run = [&](auto narrow, int64_t chunks) __attribute__((always_inline)) {
      for (int64_t c = 0; c < chunks; ++c) {
        __builtin_prefetch(values + kFetchAhead);
        __builtin_prefetch(values + kFetchAhead + 64);
        __builtin_prefetch(index + kFetchAhead);
        step<kFormat, narrow.value, kRows>(index, values, x, g.ldx, acc);
        index += kIndexStep;
        x += kGemvChunk;
      }
    };
    for (int64_t c = 0; c < g.chunks; c += kGemvSpan) {
      const int64_t chunks = g.chunks - c < kGemvSpan ? g.chunks - c : kGemvSpan;
      if (E::template has_narrow<kFormat>() && g.wide[c / kGemvSpan] == 0) {
        run(std::bool_constant<E::template has_narrow<kFormat>()>(), chunks);
      } else {
        run(std::false_type(), chunks);
      }
    }
    if (g.tail != nullptr) step<kFormat, false, kRows>(index, values, g.tail, kGemvChunk, acc);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m128i s = sum4(acc[0][r], acc[1][r], acc[2][r], acc[3][r]);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + r * kTile), s);
    }
    return values;
  }

  using GroupFn = const uint8_t*(const Group&, const uint8_t*, int32_t*);
  template <GemvFormat kFormat, int kRows>
  static constexpr GroupFn* kGroupAt = group<kFormat, kRows <= kMaxRows ? kRows : 1>;
  template <GemvFormat kFormat>
  static constexpr GroupFn* kGroup[6] = {kGroupAt<kFormat, 1>, kGroupAt<kFormat, 2>,
                                         kGroupAt<kFormat, 3>, kGroupAt<kFormat, 4>,
                                         kGroupAt<kFormat, 5>, kGroupAt<kFormat, 6>};

  // The zero points of X, then the epilogue of the dense family, for kTile outputs from n0.
  static void finish(const GemmU8S8Args& args, int64_t m, int64_t rows, int64_t n0,
                     const int32_t* w_sum, int32_t* sums) {
    for (int64_t r = 0; r < rows && args.x_zero_point != nullptr; ++r) {
      const I zero = I::broadcast(args.x_zero_point[(m + r) * args.x_zero_point_stride]);
#pragma GCC unroll 2
      for (int64_t c = 0; c < kTile; c += I::kLanes) {
        int32_t* at = sums + r * kTile + c;
        (I::load(at) - zero * I::load(w_sum + n0 + c)).store(at);
      }
    }
    const int64_t cols = args.n - n0 < kTile ? args.n - n0 : kTile;
    gemm::FinishU8S8<Arch, kTile>::run(args, m, rows, n0, cols, sums);
  }

  // Rows [m, m + rows) of the outputs of the tiles; rows <= kRowBlock.
  template <GemvFormat kFormat>
  static void run_rows(const GemmU8S8Args& args, const TileRange& tiles, int64_t m, int64_t rows) {
    const BlobView blob(args.w);
    TailRows<uint8_t> tail;
    const uint8_t* x = args.x + m * args.ldx;
    tail.fill(x, args.ldx, rows, args.k);
    const int64_t passes = (rows + kMaxRows - 1) / kMaxRows;
    const uint8_t* values = blob.values + blob.panels[tiles.panel_begin];
    int64_t g = tiles.panel_begin * (kGemvPanel / kGemvGroup);
    int64_t end = tiles.panel_end * (kGemvPanel / kGemvGroup);
    if (end > blob.groups) end = blob.groups;
    alignas(64) int32_t sums[kRowBlock * kTile] = {};
    while (g < end) {
      const int64_t n0 = g * kGemvGroup;
      for (int64_t c = 0; c < kTile && g < end; c += kGemvGroup, ++g) {
        const uint8_t* next = values;
        Group part{blob.index + g * blob.chunks * kGemvGroup * gemv_index_bytes(kFormat),
                   blob.wide + g * gemv_spans(args.k), args.k / kGemvChunk, x, args.ldx, nullptr};
        for (int64_t i = 0; i < passes; ++i) {
          const int64_t r0 = i * rows / passes;
          const int64_t r1 = (i + 1) * rows / passes;
          part.x = x + r0 * args.ldx;
          if (args.k % kGemvChunk != 0) part.tail = tail.x + r0 * kGemvChunk;
          next = kGroup<kFormat>[r1 - r0 - 1](part, values, sums + r0 * kTile + c);
        }
        values = next;
      }
      finish(args, m, rows, n0, blob.sums, sums);
    }
  }

  using RowsFn = void(const GemmU8S8Args&, const TileRange&, int64_t, int64_t);
  static RowsFn* choose(GemvFormat format) {
    switch (format) {
      case GemvFormat::kBitmap: return run_rows<GemvFormat::kBitmap>;
      case GemvFormat::kQuads: return run_rows<GemvFormat::kQuads>;
      case GemvFormat::kOneOfFour: return run_rows<GemvFormat::kOneOfFour>;
      case GemvFormat::kTwoOfFour: return run_rows<GemvFormat::kTwoOfFour>;
    }
    return nullptr;
  }

  static void run(const GemmU8S8Args& args, const TileRange& tiles) {
    RowsFn* const rows_fn = choose(reinterpret_cast<const GemvBlob*>(args.w)->format);
    for (int64_t m = tiles.m_begin; m < tiles.m_end; m += kRowBlock) {
      const int64_t rows = tiles.m_end - m < kRowBlock ? tiles.m_end - m : kRowBlock;
      rows_fn(args, tiles, m, rows);
    }
  }
};

template <class Arch>
inline constexpr BsrGemvU8S8Kernel kBsrGemvU8S8 = {U8S8<Arch>::run};

}  // namespace sprun::kernels::gemv
