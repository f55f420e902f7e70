// bf16 x bf16 over element bitmaps, instantiated per Arch by bsr_gemv_bf16_<isa>.cc.
#pragma once

#include <type_traits>

#include "kernels/bsr_gemv/expand_impl.h"
#include "kernels/gemm/epilogue_impl.h"
#include "kernels/simd/dot2.h"
#if defined(__AVX512F__)
#include "kernels/bsr_gemv/expand_avx512_impl.h"
#else
#include "kernels/bsr_gemv/expand_avx2_impl.h"
#endif

namespace sprun::kernels::gemv {

// Rows of X per pass over a group: four sums per row stay in registers.
template <class Arch>
inline constexpr int kBf16Rows = 4;
template <>
inline constexpr int kBf16Rows<simd::Avx2> = 2;

template <class Arch>
struct Bf16 {
  using Dot = simd::Dot2<Arch>;
  using V = simd::F32<simd::VecArch<Arch>>;
  using I = simd::I32<simd::VecArch<Arch>>;
  using E = Expand<Arch>;
  using Reg = typename E::Reg;
  static constexpr int kParts = E::kWordParts;
  static constexpr int kMaxRows = kBf16Rows<Arch>;
  static constexpr int64_t kTile = 2 * V::kLanes;  // outputs that the epilogue takes at once
  static constexpr int64_t kLanes = 2 * V::kLanes;  // bf16 per register
  static constexpr int64_t kIndexStep = kGemvGroup * gemv_index_bytes(GemvFormat::kBitmap);

  struct Group {
    const uint8_t* index;
    const uint8_t* wide;  // per span
    int64_t chunks;       // whole ones; their X is at `x`
    const uint16_t* x;    // first row
    int64_t ldx;
    const uint16_t* tail;  // X of one more chunk, rows kGemvChunk apart; null = none
  };

  // One chunk: acc[row][r] += X[r, chunk] * W[row, chunk].
  template <bool kNarrow, int kRows>
  SPRUN_INLINE static void step(const uint8_t* index, const uint8_t*& values, const uint16_t* x,
                                int64_t ldx, V (&acc)[kGemvGroup][kRows]) {
#pragma GCC unroll 4
    for (int row = 0; row < kGemvGroup; ++row) {
      Reg w[kParts];
      E::template words<kNarrow>(index, row, values, w);
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p) {
        const typename Dot::B b = Dot::split(I{w[p]});
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          acc[row][r] = Dot::add(acc[row][r], Dot::load(x + r * ldx + p * kLanes), b);
          asm("" : "+v"(acc[row][r].v));  // keeps g++ 12 from copying every sum twice a step
        }
      }
    }
  }

  // sums[r * kTile + row] = X[r, :] * W[row, :] of one group; returns where its values end.
  template <int kRows>
  static const uint8_t* group(const Group& g, const uint8_t* values, float* sums) {
    V acc[kGemvGroup][kRows];
#pragma GCC unroll 4
    for (int row = 0; row < kGemvGroup; ++row) {
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) acc[row][r] = V::zero();
    }
    const uint8_t* index = g.index;
    const uint16_t* x = g.x;
    const auto run = [&](auto narrow, int64_t chunks) __attribute__((always_inline)) {
      for (int64_t c = 0; c < chunks; ++c) {
        __builtin_prefetch(values + kFetchAhead);
        __builtin_prefetch(values + kFetchAhead + 64);
        __builtin_prefetch(values + kFetchAhead + 128);
        __builtin_prefetch(index + kFetchAhead);
        step<narrow.value, kRows>(index, values, x, g.ldx, acc);
        index += kIndexStep;
        x += kGemvChunk;
      }
    };
    constexpr bool kNarrow = E::template has_narrow<GemvFormat::kBitmap>();
    for (int64_t c = 0; c < g.chunks; c += kGemvSpan) {
      const int64_t chunks = g.chunks - c < kGemvSpan ? g.chunks - c : kGemvSpan;
      if (kNarrow && g.wide[c / kGemvSpan] == 0) {
        run(std::bool_constant<kNarrow>(), chunks);
      } else {
        run(std::false_type(), chunks);
      }
    }
    if (g.tail != nullptr) step<false, kRows>(index, values, g.tail, kGemvChunk, acc);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      _mm_storeu_ps(sums + r * kTile, sum4(acc[0][r], acc[1][r], acc[2][r], acc[3][r]));
    }
    return values;
  }

  using GroupFn = const uint8_t*(const Group&, const uint8_t*, float*);
  template <int kRows>
  static constexpr GroupFn* kGroupAt = group<kRows <= kMaxRows ? kRows : 1>;
  static constexpr GroupFn* kGroup[4] = {kGroupAt<1>, kGroupAt<2>, kGroupAt<3>, kGroupAt<4>};

  // Rows [m, m + rows) of the outputs of the tiles; rows <= kRowBlock.
  static void run_rows(const GemmBf16Args& args, const TileRange& tiles, int64_t m, int64_t rows) {
    const BlobView blob(args.w);
    TailRows<uint16_t> tail;
    const uint16_t* x = args.x + m * args.ldx;
    tail.fill(x, args.ldx, rows, args.k);
    const int64_t passes = (rows + kMaxRows - 1) / kMaxRows;
    const uint8_t* values = blob.values + blob.panels[tiles.panel_begin];
    int64_t g = tiles.panel_begin * (kGemvPanel / kGemvGroup);
    int64_t end = tiles.panel_end * (kGemvPanel / kGemvGroup);
    if (end > blob.groups) end = blob.groups;
    alignas(64) float sums[kRowBlock * kTile] = {};
    while (g < end) {
      const int64_t n0 = g * kGemvGroup;
      for (int64_t c = 0; c < kTile && g < end; c += kGemvGroup, ++g) {
        const uint8_t* next = values;
        Group part{blob.index + g * blob.chunks * kIndexStep, blob.wide + g * gemv_spans(args.k),
                   args.k / kGemvChunk, x, args.ldx, nullptr};
        for (int64_t i = 0; i < passes; ++i) {
          const int64_t r0 = i * rows / passes;
          const int64_t r1 = (i + 1) * rows / passes;
          part.x = x + r0 * args.ldx;
          if (args.k % kGemvChunk != 0) part.tail = tail.x + r0 * kGemvChunk;
          next = kGroup[r1 - r0 - 1](part, values, sums + r0 * kTile + c);
        }
        values = next;
      }
      const int64_t cols = args.n - n0 < kTile ? args.n - n0 : kTile;
      gemm::finish_f32<Arch, kTile>(args.epilogue, args.y, args.ldy, m, rows, n0, cols, sums);
    }
  }

  static void run(const GemmBf16Args& args, const TileRange& tiles) {
    for (int64_t m = tiles.m_begin; m < tiles.m_end; m += kRowBlock) {
      const int64_t rows = tiles.m_end - m < kRowBlock ? tiles.m_end - m : kRowBlock;
      run_rows(args, tiles, m, rows);
    }
  }
};

template <class Arch>
inline constexpr BsrGemvBf16Kernel kBsrGemvBf16 = {Bf16<Arch>::run};

}  // namespace sprun::kernels::gemv
