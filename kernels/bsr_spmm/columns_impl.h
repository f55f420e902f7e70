// Runs of Rx1 blocks whose inputs are narrower than 4 bytes (kColumnSlabs): four columns of u8 or
// two of bf16, the group_blocks of a group, are put side by side to dwords while they are loaded.
//
// Lanes as in lines_impl.h, and
//   columns<kFirst, kCount>(rows, x)   vectors kFirst .. of the four 16-token vectors, from the
//                                      parts of the rows of a group that one load covers
//   kSkipsPadding                      padding of a group may not be multiplied: 0 * inf is NaN
// Shape::kColumnVectors: vectors of four rows whose sums fit into registers.
//
// Four columns of a group are read in one load: loads are what a step has most of (with 32 tokens 0.9 of the time, with 64
// 0.975; two columns are no faster so).
#pragma once

#include <type_traits>

#include "kernels/bsr_spmm/lines_impl.h"

namespace sprun::kernels::bsr {

// The columns of a group, times kScale.
template <int kGroup>
SPRUN_INLINE void column_offsets(const uint16_t* cols, int64_t scale, int64_t (&at)[kGroup]) {
  if constexpr (kGroup == 4) {
    uint64_t all;
    __builtin_memcpy(&all, cols, sizeof(all));
    asm("" : "+r"(all));  // gcc would make one load per column of it again
#pragma GCC unroll 4
    for (int c = 0; c < kGroup; ++c) at[c] = static_cast<int64_t>(all >> (16 * c) & 0xffff) * scale;
  } else {
#pragma GCC unroll 4
    for (int c = 0; c < kGroup; ++c) at[c] = cols[c] * scale;
  }
}

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
      typename Lanes::X a[kCount];
      load_group<kFirst, kCount>(col, x, a);
      sums.multiply(a, w, 4);
    }
    sums.store(out + 16 * kFirst, kSlab, 16);
  }

  template <int kFirst, int kCount>
  SPRUN_INLINE static void load_group(const uint16_t* col, const uint8_t* x, typename Lanes::X (&a)[kCount]) {
    int64_t at[kGroup];
    column_offsets(col, kRowBytes, at);
    const uint8_t* rows[kGroup];
#pragma GCC unroll 4
    for (int c = 0; c < kGroup; ++c) {
      rows[c] = x + at[c];
      if (Lanes::kSkipsPadding && c > 0 && at[c] == at[c - 1]) rows[c] = kZeroRow;
    }
    Lanes::template columns<kFirst, kCount>(rows, a);
  }

  // Two runs at once for two vectors of tokens, where registers hold the sums of both: to begin and to end a run of few
  // groups costs as much as to multiply it (0.8 of the time, for runs of 20 groups as of 7). The second one is not longer
  // than the first; where it has ended, it goes on with weights of zero. Both have a start.
  static constexpr bool kTakesTwo = std::is_same_v<Sum, int32_t> && kRows == 4 && Shape::kColumnVectors == 4;
  SPRUN_INLINE static bool takes_two(int64_t tokens) { return kTakesTwo && tokens > 16 && tokens <= 32; }

  [[gnu::noinline]] static void add_two(const Groups<Sum>& first, const Groups<Sum>& second, const uint8_t* x,
                                        Sum* first_out, Sum* second_out) {
    Sums<Lanes, kRows, 2> sums, more;
    sums.begin(first.start, first_out, kSlab, 16);
    more.begin(second.start, second_out, kSlab, 16);
    const auto* zero_cols = reinterpret_cast<const uint16_t*>(kZeroRow);
    const uint16_t *col = first.cols, *col2 = second.count > 0 ? second.cols : zero_cols;
    const uint8_t *w = first.values, *w2 = second.count > 0 ? second.values : kZeroRow;
    for (int64_t i = 0, left = second.count; i < first.count; ++i, col += kGroup, w += 4 * kRows) {
      __builtin_prefetch(w + kAhead);
      __builtin_prefetch(w2 + kAhead);
      typename Lanes::X a[2];
      load_group<0, 2>(col, x, a);
      sums.multiply(a, w, 4);
      load_group<0, 2>(col2, x, a);
      more.multiply(a, w2, 4);
      col2 += kGroup;
      w2 += 4 * kRows;
      // Conditional moves, no branch.
      asm("dec %[left]\n cmovle %[zero], %[col]\n cmovle %[zero], %[w]"
          : [left] "+r"(left), [col] "+r"(col2), [w] "+r"(w2)
          : [zero] "r"(kZeroRow)
          : "cc");
    }
    sums.store(first_out, kSlab, 16);
    more.store(second_out, kSlab, 16);
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
