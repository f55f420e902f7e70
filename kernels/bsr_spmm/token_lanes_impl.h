// What all kernels with tokens as lanes share: the walk over slabs, units and runs, and turning the
// sums of a unit around for the row-major output.
//
// A unit's sums are kept as [unit_rows][kSlab]; a kernel adds each run to its block of rows. How
// they reach Y decides much of the speed of a sparse layer: see TokenLanes.
#pragma once

#include "kernels/bsr_spmm/bsr_layouts.h"
#include "kernels/simd/transpose.h"

namespace sprun::kernels::bsr {

// Turns 16 outputs x 16 tokens, sums[c * ld + t] of 4 bytes each, around: write(t, c, v) gets
// outputs c .. c + kLanes - 1 of token t, for each t once per c.
template <class Arch, class Write>
SPRUN_INLINE void turn_16x16(const void* sums, int64_t ld, const Write& write) {
  using V = simd::F32<simd::VecArch<Arch>>;
  constexpr int kLanes = V::kLanes;
  const float* in = static_cast<const float*>(sums);
  for (int t = 0; t < 16; t += kLanes) {
    for (int c = 0; c < 16; c += kLanes) {
      V v[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) v[i] = V::load(in + (c + i) * ld + t);
      simd::transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) write(t + i, c, v[i]);
    }
  }
}

SPRUN_INLINE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls unit(slab, u, tokens) for every unit of the range; tokens counts the rows of the slab.
template <class Unit>
SPRUN_INLINE void for_each_unit(const BsrLayout& layout, const BsrRange& range, int64_t m,
                                const Unit& unit) {
  for (int64_t s = range.slab_begin; s < range.slab_end; ++s) {
    const int64_t tokens = min_of(layout.slab_tokens, m - s * layout.slab_tokens);
    for (int64_t u = range.unit_begin; u < range.unit_end; ++u) unit(s, u, tokens);
  }
}

// The stored groups of one run and what its sums start from: a number per row, or the sums that are
// there when `start` is null.
template <class Sum>
struct Groups {
  const uint16_t* cols;
  const uint8_t* values;
  int64_t count;
  const Sum* start;
};

// An Ops from what adds runs and what begins and ends units.
template <class Runs, class Ends>
struct LanesOps : Ends {
  SPRUN_INLINE static void add_run(const Groups<typename Ends::Sum>& g, const uint8_t* x,
                                   int64_t tokens, typename Ends::Sum* out) {
    Runs::add_run(g, x, tokens, out);
  }
  SPRUN_INLINE static bool takes_two(int64_t tokens) {
    if constexpr (requires { Runs::kTakesTwo; }) return Runs::takes_two(tokens);
    return false;
  }
  SPRUN_INLINE static void add_two(const Groups<typename Ends::Sum>& first, const Groups<typename Ends::Sum>& second,
                                   const uint8_t* x, typename Ends::Sum* first_out, typename Ends::Sum* second_out) {
    if constexpr (requires { requires Runs::kTakesTwo; }) Runs::add_two(first, second, x, first_out, second_out);
  }
};

// The kernel body around an Ops, which is what one dtype and pattern do in their own way:
//   Arch, Args, Sum (int32_t or float), kLayout, kValueBytes (of one weight)
//   start_unit(gemm, u, start)            start[r] of each output of a unit
//   add_run(groups, x, tokens, out)       sums of one run, out: [block.rows][kSlab]
//   takes_two(tokens), add_two(..)        whether two runs may be added together, and how
//   needs_tiles(gemm)                     finish_whole() cannot do what the product asks for
//   finish_whole(gemm, m, n0, sums)       16 x 16 elements of Y from sums[c * kSlab + t]
//   finish_tile<kNr>(gemm, m, rows, n0, cols, tile)    rows x cols of Y from tile[t * kNr + c]
template <class Ops>
struct TokenLanes {
  using Arch = typename Ops::Arch;
  using Args = typename Ops::Args;
  using Gemm = decltype(Args::gemm);
  using Sum = typename Ops::Sum;
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr const BsrLayout& kLayout = Ops::kLayout;
  static constexpr int64_t kSlab = kLayout.slab_tokens;
  static constexpr int64_t kUnit = kLayout.unit_rows;
  // Outputs whose rows are written in one go.
  static constexpr int64_t kBatch = kUnit > 128 ? kUnit : 128;
  static constexpr int64_t kGroupBytes =
      int64_t{kLayout.block.size()} * kLayout.group_blocks * Ops::kValueBytes;

  // Rows that are a multiple of 2 KiB apart share a few cache sets: 16 tokens would push each other
  // out before their next line is written. Such rows are written one after the other.
  static bool rows_collide(const Gemm& gemm) { return gemm.ldy * 4 % 2048 == 0; }

  // Turns 16 tokens of 16 outputs into tile[t * ld + c].
  static void turn(const Sum* sums, Sum* tile, int64_t ld) {
    float* to = reinterpret_cast<float*>(tile);
    turn_16x16<Arch>(sums, kSlab, [&](int t, int c, V v) __attribute__((always_inline)) {
      v.store(to + t * ld + c);
    });
  }

  static void finish_direct(const Gemm& gemm, int64_t m, int64_t rows, int64_t n0,
                            const Sum* sums) {
    const int64_t cols = min_of(16, gemm.n - n0);
    if (rows == 16 && cols == 16 && !Ops::needs_tiles(gemm)) {
      return Ops::finish_whole(gemm, m, n0, sums);
    }
    alignas(64) Sum tile[16 * 16];
    turn(sums, tile, 16);
    Ops::template finish_tile<16>(gemm, m, rows, n0, cols, tile);
  }

  // All sums of up to kBatch outputs from n0 on, 16 tokens at a time.
  static void finish_rows(const Gemm& gemm, int64_t m, int64_t tokens, int64_t n0, const Sum* sums,
                          Sum* tile) {
    const int64_t cols = min_of(kBatch, gemm.n - n0);
    for (int64_t t = 0; t < tokens; t += 16) {
      for (int64_t c = 0; c < cols; c += 16) turn(sums + c * kSlab + t, tile + c, kBatch);
      Ops::template finish_tile<kBatch>(gemm, m + t, min_of(16, tokens - t), n0, cols, tile);
    }
  }

  // Sums of unit u; calls between() after each run.
  template <class Between>
  SPRUN_INLINE static void multiply(const Args& args, int64_t slab, int64_t u, int64_t tokens,
                                    Sum* start, Sum* sums, const Between& between) {
    const BsrWeights& w = args.w;
    const BsrUnit& unit = w.units[u];
    const auto* x = reinterpret_cast<const uint8_t*>(args.slabs +
                                                     slab * x_slab_elements(kLayout, args.gemm.k));
    Ops::start_unit(args.gemm, u, start);
    Groups<Sum> g = {w.cols + int64_t{unit.first_group} * kLayout.group_blocks,
                     static_cast<const uint8_t*>(w.values) + unit.first_group * kGroupBytes, 0,
                     start};
    constexpr auto kRuns = static_cast<int32_t>(kUnit / kLayout.block.rows);  // of a K block
    const int32_t first_block_end = unit.first_run + kRuns;
    const auto take = [&](int32_t i) __attribute__((always_inline)) {
      const BsrRun run = w.runs[i];
      g.count = run.groups;
      g.start = i < first_block_end ? start + run.row : nullptr;  // later K blocks add
      const Groups<Sum> taken = g;
      g.cols += g.count * kLayout.group_blocks;
      g.values += g.count * kGroupBytes;
      return taken;
    };
    if constexpr (kRuns % 2 == 0 && kLayout.k_block == 0) {
      if (Ops::takes_two(tokens)) {
        for (int32_t i = unit.first_run; i < first_block_end; i += 2) {
          const Groups<Sum> first = take(i), second = take(i + 1);
          Ops::add_two(first, second, x, sums + w.runs[i].row * kSlab, sums + w.runs[i + 1].row * kSlab);
          between();
        }
        return;
      }
    }
    for (int32_t i = unit.first_run; i < w.units[u + 1].first_run; ++i) {
      Ops::add_run(take(i), x, tokens, sums + w.runs[i].row * kSlab);
      between();
    }
  }

  // Not inlined: together in run(), gcc 12 was seen to keep the sums of a pass in memory.
  // Batches of units, each finished as whole rows of kBatch outputs.
  [[gnu::noinline]] static void run_batches(const Args& args, const BsrRange& range, int64_t slab, int64_t tokens,
                          Sum* sums, Sum* tile, Sum* start) {
    constexpr int64_t kUnits = kBatch / kUnit;
    for (int64_t u0 = range.unit_begin; u0 < range.unit_end; u0 += kUnits) {
      for (int64_t u = u0; u < min_of(u0 + kUnits, range.unit_end); ++u) {
        multiply(args, slab, u, tokens, start, sums + (u - u0) * kUnit * kSlab, [] {});
      }
      // Outputs past the range are not written: they belong to another worker.
      Gemm own = args.gemm;
      own.n = min_of(own.n, range.unit_end * kUnit);
      finish_rows(own, slab * kSlab, tokens, u0 * kUnit, sums, tile);
    }
  }

  // Units one by one. The tiles of a unit are written between the runs of the next one, so that
  // the stores drain while the multipliers work.
  [[gnu::noinline]] static void run_direct(const Args& args, const BsrRange& range, int64_t slab, int64_t tokens,
                         Sum* sums, Sum* start) {
    const int64_t m = slab * kSlab;
    int64_t u = range.unit_begin, t = tokens;
    const auto write_tile = [&] {  // of unit u - 1
      if (t >= tokens) return;
      const Sum* from = sums + (u - 1) % 2 * kUnit * kSlab + t;
      finish_direct(args.gemm, m + t, min_of(16, tokens - t), (u - 1) * 16, from);
      t += 16;
    };
    for (; u < range.unit_end; ++u) {
      multiply(args, slab, u, tokens, start, sums + u % 2 * kUnit * kSlab, write_tile);
      while (t < tokens) write_tile();
      t = 0;
    }
    while (t < tokens) write_tile();
  }

  static void run(const Args& args, const BsrRange& range, void* scratch) {
    Sum* sums = static_cast<Sum*>(scratch);
    Sum* tile = sums + kBatch * kSlab;
    Sum* start = tile + 16 * kBatch;
    const bool direct = !rows_collide(args.gemm);
    for (int64_t s = range.slab_begin; s < range.slab_end; ++s) {
      const int64_t tokens = min_of(kSlab, args.gemm.m - s * kSlab);
      if constexpr (kUnit == 16) {
        if (direct) {
          run_direct(args, range, s, tokens, sums, start);
          continue;
        }
      }
      run_batches(args, range, s, tokens, sums, tile, start);
    }
  }

  static constexpr int64_t kScratchBytes = (kBatch * kSlab + 16 * kBatch + kUnit) * 4;
};

}  // namespace sprun::kernels::bsr
