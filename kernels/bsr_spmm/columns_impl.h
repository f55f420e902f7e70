// Runs of Rx1 blocks whose inputs are narrower than 4 bytes (kColumnSlabs): four columns of u8 or
// two of bf16, the group_blocks of a group, are put side by side to dwords while they are loaded.
//
// Lanes as in lines_impl.h, and
//   columns<kFirst, kCount>(rows, x)   vectors kFirst .. of the four 16-token vectors, from the
//                                      parts of the rows of a group that one load covers
//   kSkipsPadding                      padding of a group may not be multiplied: 0 * inf is NaN
// Shape::kColumnVectors: vectors of four rows whose sums fit into registers.
#pragma once

#include "kernels/bsr_spmm/lines_impl.h"

namespace sprun::kernels::bsr {

// A whole pass over four rows and 64 tokens where a Lanes has one of its own:
//   static void run<kAhead, kColsAhead>(groups, x, sums)     what to fetch ahead, in bytes
template <class Lanes>
struct ColumnLoop {
  static constexpr bool kExists = false;
};

template <class LanesT, class Shape, const BsrLayout& kLayout>
struct Columns {
  using Lanes = LanesT;
  using Sum = typename Lanes::Sum;
  static constexpr int64_t kSlab = kLayout.slab_tokens;
  static constexpr int kRows = kLayout.block.rows;
  static constexpr int kPart = kRows < 4 ? kRows : 4;
  static constexpr int kLanes = Lanes::Acc::kLanes;
  static constexpr int kGroup = kLayout.group_blocks;
  static constexpr int64_t kRowBytes = kSlab * (4 / kGroup);
  // Weights of a model come from memory or the last cache: bytes of values to fetch ahead.
  static constexpr int64_t kAhead = 2048, kColsAhead = 2 * kGroup * kAhead / (4 * kRows);
  // What stands in for the column of a block that only fills a group.
  alignas(64) static constexpr uint8_t kZeroRow[128] = {};
  static_assert(kLayout.block.cols == 1 && kGroup == Lanes::kInputs && kSlab == 64);

  // x points to the part of the rows that one load covers. A function of its own: inlined into large ones, gcc 12 was
  // seen to keep the sums in memory (2.5x slower).
  template <int kFirst, int kCount>
  [[gnu::noinline]] static void pass(const Groups<Sum>& g, const uint8_t* x, Sum* out) {
    if constexpr (ColumnLoop<Lanes>::kExists && kRows == 4 && kCount == 4) {
      return ColumnLoop<Lanes>::template run<kAhead, kColsAhead>(g, x, out);
    }
    Sums<Lanes, kPart, kCount> sums;
    sums.begin(g.start, out + 16 * kFirst, kSlab, 16);
    const uint16_t* col = g.cols;
    const uint8_t* w = g.values;
    for (int64_t i = 0; i < g.count; ++i, col += kGroup, w += 4 * kRows) {
      if constexpr (!kWidens<Lanes>) __builtin_prefetch(w + kAhead);
      __builtin_prefetch(col + kColsAhead / 2);
      const uint8_t* rows[kGroup];
#pragma GCC unroll 4
      for (int c = 0; c < kGroup; ++c) {
        rows[c] = x + col[c] * kRowBytes;
        if (Lanes::kSkipsPadding && c > 0 && col[c] == col[c - 1]) rows[c] = kZeroRow;
      }
      typename Lanes::X a[kCount];
      Lanes::template columns<kFirst, kCount>(rows, a);
      sums.multiply(a, w, 4);
    }
    sums.store(out + 16 * kFirst, kSlab, 16);
  }

  static void add_part(const Groups<Sum>& g, const uint8_t* x, int64_t vectors, Sum* out) {
    if constexpr (Shape::kColumnVectors == 4) {
      if (vectors == 1) pass<0, 1>(g, x, out);
      if (vectors == 2) pass<0, 2>(g, x, out);
      if (vectors == 3) pass<0, 3>(g, x, out);
      if (vectors == 4) pass<0, 4>(g, x, out);
    } else {
      if (vectors == 1) pass<0, 1>(g, x, out);
      if (vectors >= 2) pass<0, 2>(g, x, out);
      if (vectors == 3) pass<2, 1>(g, x, out);
      if (vectors == 4) pass<2, 2>(g, x, out);
    }
  }

  static void add_run(const Groups<Sum>& g, const uint8_t* x, int64_t tokens, Sum* out) {
    for_widened<Lanes, 4 * kRows, kGroup>(g, [&](const Groups<Sum>& part) {
      add_rows(part, x, tokens, out);
    });
  }

  static void add_rows(const Groups<Sum>& g, const uint8_t* x, int64_t tokens, Sum* out) {
    const int64_t vectors = (tokens + 15) / 16;
    for (int64_t h = 0; h < 16; h += kLanes, x += 4 * kLanes, out += kLanes) {
      for (int64_t r = 0; r < kRows; r += kPart) {
        const Sum* start = g.start == nullptr ? nullptr : g.start + r;
        add_part({g.cols, g.values + 4 * r, g.count, start}, x, vectors, out + r * kSlab);
      }
    }
  }
};

}  // namespace sprun::kernels::bsr
