// Block-sparse products on AMX tiles, the part that u8 x s8 and bf16 share.
//
// A unit is two strips of 16 outputs, a slab is two times 16 tokens: four C tiles of 16 outputs x
// 16 tokens. One step takes 16 lines of the slab, 64 bytes for 16 tokens each: 16 stored blocks of
// four u8 inputs or 8 of four bf16 inputs. Their values are the A tile as they lie. The lines are
// the B tile; no tile load gathers, so they are copied to a buffer first, one step ahead of the
// products. No copy is needed when the columns of a step follow one another, and one copy serves
// both strips when their columns are the same.
#pragma once

#include "kernels/amx/tile.h"
#include "kernels/bsr_spmm/bsr_spmm_types.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::bsr {

inline constexpr int64_t kAmxLanes = 16;  // outputs of a strip, tokens of a tile, lines of a step
inline constexpr int64_t kAmxSlab = 2 * kAmxLanes;              // tokens
inline constexpr int64_t kAmxUnit = 2 * kAmxLanes;              // outputs
inline constexpr int64_t kAmxLine = 4 * kAmxSlab;               // bytes of a line with both tiles
inline constexpr int64_t kAmxTile = kAmxLanes * 4 * kAmxLanes;  // bytes
inline constexpr int64_t kAmxGathered = kAmxLanes * kAmxLine;   // bytes of the lines of a step
// Gathered lines of two strips and two steps, and one weight tile of each strip.
inline constexpr int64_t kAmxBufferBytes = 4 * kAmxGathered + 2 * kAmxTile;

// Tiles 0..3 are C [strip][tokens], 4 A, 5 A of the other strip, 6 and 7 B of the two times 16
// tokens. All of them are whole: what a step or a slab lacks is filled with zeros.
constexpr amx::TileConfig amx_config() {
  amx::TileConfig config;
  for (int t = 0; t < amx::kTiles; ++t) config.set(t, amx::kMaxTileRows, amx::kMaxTileBytes);
  return config;
}

// One strip: its stored blocks, kLines lines each, and where its sums are.
template <int kLines>
struct AmxStrip {
  static constexpr int64_t kStep = kAmxLanes / kLines;  // blocks of a step
  const uint16_t* cols;
  const uint8_t* values;
  int64_t blocks;
  void* sums;           // [16][kAmxSlab] of 4 bytes
  const uint8_t* tail;  // A of the last step if it has fewer than kStep blocks, filled with zeros

  SPRUN_INLINE int64_t steps() const { return (blocks + kStep - 1) / kStep; }
  SPRUN_INLINE int64_t blocks_of(int64_t step) const {
    const int64_t left = blocks - step * kStep;
    return left < kStep ? left : kStep;
  }
  SPRUN_INLINE const uint8_t* a_tile(int64_t step) const {
    return (step + 1) * kStep <= blocks ? values + step * kAmxTile : tail;
  }
};

// Writes the last, narrower weight tile of a strip to `out` as a whole tile.
template <class Arch, int kLines>
SPRUN_INLINE void widen_tail(AmxStrip<kLines>& strip, uint8_t* out) {
  using V = simd::F32<simd::VecArch<Arch>>;
  constexpr int64_t kStep = AmxStrip<kLines>::kStep;
  const int64_t width = strip.blocks % kStep * kLines;  // dwords of a row
  if (width == 0) return;
  const float* in = reinterpret_cast<const float*>(strip.values + strip.blocks / kStep * kAmxTile);
  float* row = reinterpret_cast<float*>(out);
  strip.tail = out;
  for (int64_t r = 0; r < kAmxLanes; ++r, in += width, row += kAmxLanes) {
    for (int64_t c = 0; c < kAmxLanes; c += V::kLanes) {
      const int64_t left = width < c ? 0 : width - c;
      V::load_partial(in + (width - left), left < V::kLanes ? left : V::kLanes).store(row + c);
    }
  }
}

// Tile: TileBackend. Dot: dot<kC, kA, kB>(tile) and kLines. kTokens: 1 or 2 times 16 tokens.
template <class Tile, class Dot, int kTokens>
struct AmxStrips {
  static constexpr int64_t kLines = Dot::kLines;
  using Strip = AmxStrip<Dot::kLines>;

  // Where the B tile of the first 16 tokens begins; the second lies 64 bytes further on.
  struct Lines {
    const uint8_t* at[2];  // per strip; equal when one serves both
  };

  SPRUN_INLINE static bool same_columns(const uint16_t* a, const uint16_t* b, int64_t count) {
    uint64_t difference = 0;
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
      uint64_t x;
      uint64_t y;
      __builtin_memcpy(&x, a + i, 8);
      __builtin_memcpy(&y, b + i, 8);
      difference |= x ^ y;
    }
    for (; i < count; ++i) difference |= static_cast<uint64_t>(a[i] ^ b[i]);
    return difference == 0;
  }

  SPRUN_INLINE static void copy_block(const uint8_t* lines, uint8_t* to) {
    if constexpr (kTokens == 2) {
      __builtin_memcpy(to, lines, kLines * kAmxLine);
      return;
    }
#pragma GCC unroll 2
    for (int64_t i = 0; i < kLines; ++i)
      __builtin_memcpy(to + i * kAmxLine, lines + i * kAmxLine, 64);
  }

  // The lines of one step: in the slab when they follow one another, else copied to `buffer`. Lines
  // past those of `count` blocks become 0: their weights are 0, but what lies there may be no
  // number.
  SPRUN_INLINE static const uint8_t* gather(const uint16_t* cols, int64_t count,
                                            const uint8_t* slab, uint8_t* buffer) {
    constexpr int64_t kStep = Strip::kStep;
    constexpr int64_t kBlock = kLines * kAmxLine;
    if (count == kStep) {
      if (cols[kStep - 1] - cols[0] == kStep - 1) return slab + cols[0] * kBlock;
#pragma GCC unroll 16
      for (int64_t i = 0; i < kStep; ++i) copy_block(slab + cols[i] * kBlock, buffer + i * kBlock);
      return buffer;
    }
    for (int64_t i = 0; i < count; ++i) copy_block(slab + cols[i] * kBlock, buffer + i * kBlock);
    for (int64_t i = count * kLines; i < kAmxLanes; ++i) {
      __builtin_memset(buffer + i * kAmxLine, 0, 64 * kTokens);
    }
    return buffer;
  }

  // buffers: two of kAmxGathered bytes. The first strip has at least as many steps as the second.
  SPRUN_INLINE static Lines gather_both(const Strip (&strips)[2], int64_t step, const uint8_t* slab,
                                        uint8_t* buffers) {
    const uint16_t* first = strips[0].cols + step * Strip::kStep;
    const uint16_t* second = strips[1].cols + step * Strip::kStep;
    const int64_t count = strips[0].blocks_of(step);
    Lines lines;
    lines.at[0] = gather(first, count, slab, buffers);
    lines.at[1] = lines.at[0];
    if (step >= strips[1].steps()) return lines;
    const int64_t other = strips[1].blocks_of(step);
    if (other != count || !same_columns(first, second, count)) {
      lines.at[1] = gather(second, other, slab, buffers + kAmxGathered);
    }
    return lines;
  }

  SPRUN_INLINE static void multiply(Tile& tile, const Strip (&strips)[2], int64_t step,
                                    const Lines& lines) {
    tile.template load<4>(strips[0].a_tile(step), 64);
    tile.template load<6>(lines.at[0], kAmxLine);
    Dot::template dot<0, 4, 6>(tile);
    if constexpr (kTokens == 2) {
      tile.template load<7>(lines.at[0] + 64, kAmxLine);
      Dot::template dot<1, 4, 7>(tile);
    }
    if (step >= strips[1].steps()) return;
    tile.template load<5>(strips[1].a_tile(step), 64);
    const bool reload = lines.at[1] != lines.at[0];
    if (reload) tile.template load<6>(lines.at[1], kAmxLine);
    Dot::template dot<2, 5, 6>(tile);
    if constexpr (kTokens == 2) {
      if (reload) tile.template load<7>(lines.at[1] + 64, kAmxLine);
      Dot::template dot<3, 5, 7>(tile);
    }
  }

  template <int kC>
  SPRUN_INLINE static void load_sums(Tile& tile, const Strip& strip) {
    const char* sums = static_cast<const char*>(strip.sums);
    tile.template load<kC>(sums, kAmxLine);
    if constexpr (kTokens == 2) tile.template load<kC + 1>(sums + 64, kAmxLine);
  }

  template <int kC>
  SPRUN_INLINE static void store_sums(Tile& tile, const Strip& strip) {
    char* sums = static_cast<char*>(strip.sums);
    tile.template store<kC>(sums, kAmxLine);
    if constexpr (kTokens == 2) tile.template store<kC + 1>(sums + 64, kAmxLine);
  }

  // Adds both strips' products with one slab to their sums. buffers: 4 * kAmxGathered bytes,
  // 64-byte aligned.
  static void run(Tile& tile, const Strip (&strips)[2], const uint8_t* slab, uint8_t* buffers) {
    const int64_t steps = strips[0].steps();
    if (steps == 0) return;
    load_sums<0>(tile, strips[0]);
    load_sums<2>(tile, strips[1]);
    Lines now = gather_both(strips, 0, slab, buffers);
    for (int64_t i = 0; i < steps; ++i) {
      Lines next = now;
      if (i + 1 < steps) {
        next = gather_both(strips, i + 1, slab, buffers + (i + 1) % 2 * 2 * kAmxGathered);
      }
      multiply(tile, strips, i, now);
      now = next;
    }
    store_sums<0>(tile, strips[0]);
    store_sums<2>(tile, strips[1]);
  }
};

// Adds the products of unit `u` with one slab of `tokens` rows to sums [kAmxUnit][kAmxSlab].
// buffers: kAmxBufferBytes, 64-byte aligned. The layout of w has runs of one strip, longest first.
template <class Arch, class Dot, class Tile>
void amx_add_unit(Tile& tile, const BsrWeights& w, int64_t u, const uint8_t* slab, int64_t tokens,
                  void* sums, uint8_t* buffers) {
  constexpr int64_t kBlockBytes = 4 * kAmxLanes * Dot::kLines;
  const BsrUnit& unit = w.units[u];
  int64_t block = unit.first_group;
  AmxStrip<Dot::kLines> strips[2];
  for (int i = 0; i < 2; ++i) {
    const BsrRun& run = w.runs[unit.first_run + i];
    strips[i] = {w.cols + block, static_cast<const uint8_t*>(w.values) + block * kBlockBytes,
                 run.groups, static_cast<char*>(sums) + run.row * kAmxLine, nullptr};
    widen_tail<Arch>(strips[i], buffers + 4 * kAmxGathered + i * kAmxTile);
    block += run.groups;
  }
  if (tokens > kAmxLanes) {
    AmxStrips<Tile, Dot, 2>::run(tile, strips, slab, buffers);
  } else {
    AmxStrips<Tile, Dot, 1>::run(tile, strips, slab, buffers);
  }
}

}  // namespace sprun::kernels::bsr
