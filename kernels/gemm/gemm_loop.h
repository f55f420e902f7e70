// The loop nest that all GEMM families share. ISA files instantiate it through <family>_impl.h.
//
// One worker's part (rows x panels) is cut into row blocks whose X fits in half of L2, and K into
// chunks whose weight slice stays in L2; each micro-kernel keeps a tile of rows x nr sums in
// registers. X is read in place by broadcasts: measured on Zen 5, copying it into panels first
// gains nothing (f32 M = 128, N = K = 768: 235 GFLOP/s both ways, peak 238).
#pragma once

#include <cstdint>

#include "kernels/gemm/gemm_types.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::gemm {

// What the micro-kernel should fetch while it works: its share of the next panel, or, when there is
// only one row tile, the weights kStreamAhead bytes further on.
struct Prefetch {
  const char* at;
  int64_t step_bytes;  // per k step
};

// A Family provides:
//   Arch, Args, Acc (float or int32_t)
//   kNr, kMaxRows         register tile
//   kStep                 k elements per step of the packed layout (1, 2 or 4)
//   kChunk                k elements per pass, a multiple of kStep
//   kXBytes, kWBytes      bytes of one element of X and W
//   micro(rows, args, m, panel, k_begin, k_end, acc, prefetch)
//       adds one chunk of K to the sums of a tile; with the last chunk (k_end = K), writes Y
// and may provide, to turn a chunk of weights into another form once for many rows:
//   kWideBytes            scratch for it
//   widens(args, tiles)   true if that pays for this many tiles
//   widen(args, panel, k_begin, k_end, wide), micro_wide(as micro, wide)
template <class Family>
struct Loop {
  using Args = typename Family::Args;
  using Acc = typename Family::Acc;
  // Measured on Zen 5 against 16 KiB, one thread: M = 1 equal, M = 4 five percent faster, M = 8 two; 2 KiB is slower.
  static constexpr int64_t kStreamAhead = 8 * 1024;
  static constexpr int64_t kL2Budget = 448 * 1024;
  static constexpr int64_t kMaxBlockRows = 12 * Family::kMaxRows;
  static constexpr int64_t kAccBytes =
      kMaxBlockRows * Family::kNr * static_cast<int64_t>(sizeof(Acc));
  static constexpr bool kWidens = requires { Family::kWideBytes; };
  static constexpr int64_t scratch_bytes() {
    if constexpr (kWidens) return kAccBytes + Family::kWideBytes;
    else return kAccBytes;
  }
  static constexpr int64_t kScratchBytes = scratch_bytes();

  static int64_t block_rows(int64_t rows, int64_t k) {
    int64_t fit = kL2Budget / (k * Family::kXBytes + 1);
    fit = fit / Family::kMaxRows * Family::kMaxRows;
    if (fit < Family::kMaxRows) fit = Family::kMaxRows;
    if (fit > kMaxBlockRows) fit = kMaxBlockRows;
    const int64_t blocks = (rows + fit - 1) / fit;
    return blocks == 0 ? 0 : (rows + blocks - 1) / blocks;
  }

  // Rows [m, m + rows) of one panel.
  static void panel(const Args& args, int64_t m, int64_t rows, int64_t panel_index,
                    const char* this_panel, const char* next_panel, Acc* acc) {
    const int64_t tiles = (rows + Family::kMaxRows - 1) / Family::kMaxRows;
    const int64_t step_bytes = Family::kNr * Family::kStep * Family::kWBytes / tiles;
    const char* fetch_panel = tiles == 1 ? this_panel + kStreamAhead : next_panel;
    bool wide = false;
    if constexpr (kWidens) wide = Family::widens(args, tiles);
    int64_t k = 0;
    do {
      const int64_t k_end = args.k - k > Family::kChunk ? k + Family::kChunk : args.k;
      const int64_t steps = (k_end - k + Family::kStep - 1) / Family::kStep;
      const char* fetch = fetch_panel + k * Family::kNr * Family::kWBytes;
      if constexpr (kWidens) {
        if (wide) Family::widen(args, panel_index, k, k_end, acc + kAccBytes / sizeof(Acc));
      }
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t r0 = t * rows / tiles;
        const int64_t r1 = (t + 1) * rows / tiles;
        Acc* sums = acc + r0 * Family::kNr;
        const Prefetch ahead{fetch + t * steps * step_bytes, step_bytes};
        if constexpr (kWidens) {
          if (wide) {
            Family::micro_wide(r1 - r0, args, m + r0, panel_index, k, k_end, sums, ahead,
                               acc + kAccBytes / sizeof(Acc));
            continue;
          }
        }
        Family::micro(r1 - r0, args, m + r0, panel_index, k, k_end, sums, ahead);
      }
      k = k_end;
    } while (k < args.k);
  }

  static void run(const Args& args, const TileRange& tiles, void* scratch) {
    Acc* acc = static_cast<Acc*>(scratch);
    const int64_t steps = (args.k + Family::kStep - 1) / Family::kStep;
    const int64_t panel_bytes = steps * Family::kStep * Family::kNr * Family::kWBytes;
    const char* w = reinterpret_cast<const char*>(args.w);
    const int64_t block = block_rows(tiles.m_end - tiles.m_begin, args.k);
    for (int64_t m = tiles.m_begin; m < tiles.m_end; m += block) {
      const int64_t rows = tiles.m_end - m < block ? tiles.m_end - m : block;
      for (int64_t p = tiles.panel_begin; p < tiles.panel_end; ++p) {
        const int64_t next = p + 1 < tiles.panel_end ? p + 1 : tiles.panel_begin;
        panel(args, m, rows, p, w + p * panel_bytes, w + next * panel_bytes, acc);
      }
    }
  }
};

}  // namespace sprun::kernels::gemm
