// Runs whose inputs are whole lines of a slab (kGroupSlabs): the multiplications of every dtype.
//
// A line holds 4 bytes of inputs (Lanes::kInputs of them) of each token of the slab; a block has
// block.cols / kInputs lines, and as many dwords of weights per output. One step loads the lines of
// one block and multiplies them by one broadcast dword per output and line; the sums stay in
// registers while a run lasts.
//
// Lanes is how one dtype multiplies:
//   Arch, Acc (vector of sums), Sum (element), X, kInputs
//   X load(p)                     a vector of dwords of a line
//   auto weight(p)                the dword at p in every lane
//   accumulate(acc, x, weight)    in place
// Shape is how many sums fit into registers: kPassRows outputs x kPassVectors vectors, kSets sets
// that take turns where there are few.
#pragma once

#include "kernels/bsr_spmm/widened_impl.h"

namespace sprun::kernels::bsr {

// kRows x kVectors sums. out: [kRows][ld], vector v at out + v * step.
template <class Lanes, int kRows, int kVectors>
struct Sums {
  using Acc = typename Lanes::Acc;
  using Sum = typename Lanes::Sum;
  Acc at[kRows][kVectors];

  SPRUN_INLINE void clear() {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) at[r][v] = Acc::zero();
    }
  }
  // Each row starts from its own number, or from the sums that are there when `start` is null.
  SPRUN_INLINE void begin(const Sum* start, const Sum* out, int64_t ld, int64_t step) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        at[r][v] = start != nullptr ? Acc::broadcast(start[r]) : Acc::load(out + r * ld + v * step);
      }
    }
  }
  SPRUN_INLINE void store(Sum* out, int64_t ld, int64_t step) const {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) at[r][v].store(out + r * ld + v * step);
    }
  }
  SPRUN_INLINE void add(const Sums& other) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) at[r][v] = at[r][v] + other.at[r][v];
    }
  }
  // The dword of row r is at w + r * row_bytes.
  SPRUN_INLINE void multiply(const typename Lanes::X (&x)[kVectors], const uint8_t* w,
                             int64_t row_bytes) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto weight = Lanes::weight(w + r * row_bytes);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) Lanes::accumulate(at[r][v], x[v], weight);
    }
  }
};

template <class LanesT, class Shape, const BsrLayout& kLayout>
struct Lines {
  using Lanes = LanesT;
  using Sum = typename Lanes::Sum;
  static constexpr int64_t kSlab = kLayout.slab_tokens;
  static constexpr int kRows = kLayout.block.rows;
  static constexpr int kLanes = Lanes::Acc::kLanes;
  static constexpr int kWide = kLayout.block.cols / Lanes::kInputs;  // lines of a block
  static constexpr int64_t kRowBytes = 4 * kWide;
  static_assert(kLayout.group_blocks == 1 && kLayout.block.cols % Lanes::kInputs == 0);

  // Outputs and vectors of one pass: many rows share few vectors, single rows take many.
  static constexpr int kPart = kRows < Shape::kPassRows ? kRows : Shape::kPassRows;
  static constexpr int kBudget = Shape::kPassRows * Shape::kPassVectors;
  static constexpr int kMany = kBudget / kPart < 4 ? kBudget / kPart : 4;
  static constexpr int kSlabVectors = static_cast<int>(kSlab) / kLanes;
  static constexpr int kPass = kMany < kSlabVectors ? kMany : kSlabVectors;

  // A line that serves four outputs comes from L2 most times. It is fetched some blocks ahead, at
  // the end of a run for the next one; behind the columns of the last run lie values, which are
  // taken for columns then: a prefetch may name any address. A single vector does not pay for it.
  static constexpr bool kFetchesLines = kWide == 1 && kRows == 4;
  static constexpr int64_t kAhead = 8;

  // kPart outputs of a block and kCount vectors of tokens.
  template <int kCount, int kSets>
  SPRUN_INLINE static void pass(const Groups<Sum>& g, const uint8_t* x, Sum* out) {
    using SumsOf = Sums<Lanes, kPart, kCount>;
    SumsOf sums[kSets];
    sums[0].begin(g.start, out, kSlab, kLanes);
#pragma GCC unroll 4
    for (int s = 1; s < kSets; ++s) sums[s].clear();
    const uint8_t* w = g.values;
    const uint16_t* col = g.cols;
    const auto step = [&](SumsOf& sum, int64_t i) __attribute__((always_inline)) {
      const uint8_t* in = x + col[i] * (4 * kWide * kSlab);
      if constexpr (kFetchesLines && kCount > 1) {
        const uint8_t* next = x + col[i + kAhead] * (4 * kSlab);
#pragma GCC unroll 4
        for (int t = 0; t < kCount * kLanes; t += 16) __builtin_prefetch(next + 4 * t);
      }
#pragma GCC unroll 4
      for (int j = 0; j < kWide; ++j) {
        typename Lanes::X a[kCount];
#pragma GCC unroll 8
        for (int v = 0; v < kCount; ++v) a[v] = Lanes::load(in + 4 * (j * kSlab + kLanes * v));
        sum.multiply(a, w + i * (kRowBytes * kRows) + 4 * j, kRowBytes);
      }
    };
    int64_t left = g.count;
    for (; left >= kSets; left -= kSets, col += kSets, w += kSets * kRowBytes * kRows) {
#pragma GCC unroll 4
      for (int s = 0; s < kSets; ++s) step(sums[s], s);
    }
    for (int64_t i = 0; i < left; ++i) step(sums[0], i);
#pragma GCC unroll 4
    for (int s = 1; s < kSets; ++s) sums[0].add(sums[s]);
    sums[0].store(out, kSlab, kLanes);
  }

  // Sets of sums for a pass of `count` vectors: short chains must not wait for each other.
  static constexpr int sets(int count) {
    if (kPart * count > 4) return 1;
    return kPart * count > 2 ? Shape::kSets : 2 * Shape::kSets;
  }

  // A call costs the short runs of single rows 20 %. Inside the loop over the parts of 16 rows it
  // is needed: the compiler runs out of registers there.
  template <int kCount>
  [[gnu::noinline]] static void called_pass(const Groups<Sum>& g, const uint8_t* x, Sum* out) {
    pass<kCount, sets(kCount)>(g, x, out);
  }
  template <int kCount>
  static void plain_pass(const Groups<Sum>& g, const uint8_t* x, Sum* out) {
    pass<kCount, sets(kCount)>(g, x, out);
  }
  template <int kCount>
  SPRUN_INLINE static void any_pass(const Groups<Sum>& g, const uint8_t* x, Sum* out) {
    if constexpr (kRows == 1) pass<kCount, sets(kCount)>(g, x, out);
    else if constexpr (kRows == kPart) plain_pass<kCount>(g, x, out);
    else called_pass<kCount>(g, x, out);
  }

  SPRUN_INLINE static void add_run(const Groups<Sum>& g, const uint8_t* x, int64_t tokens,
                                   Sum* out) {
    for_widened<Lanes, kRowBytes * kRows, 1>(g, [&](const Groups<Sum>& part)
                                                    __attribute__((always_inline)) {
      add_part(part, x, tokens, out);
    });
  }

  SPRUN_INLINE static void add_part(const Groups<Sum>& g, const uint8_t* x, int64_t tokens,
                                    Sum* out) {
    const int64_t vectors = (tokens + kLanes - 1) / kLanes;
    for (int64_t r = 0; r < kRows; r += kPart) {
      const Sum* start = g.start == nullptr ? nullptr : g.start + r;
      const Groups<Sum> part = {g.cols, g.values + kRowBytes * r, g.count, start};
      Sum* to = out + r * kSlab;
      int64_t v = 0;
      for (; v + kPass <= vectors; v += kPass) {
        any_pass<kPass>(part, x + 4 * kLanes * v, to + kLanes * v);
      }
      if constexpr (kPass > 2) {
        for (; v + 2 <= vectors; v += 2) {
          any_pass<2>(part, x + 4 * kLanes * v, to + kLanes * v);
        }
      }
      for (; v < vectors; ++v) any_pass<1>(part, x + 4 * kLanes * v, to + kLanes * v);
    }
  }
};

}  // namespace sprun::kernels::bsr
