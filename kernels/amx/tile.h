// AMX tiles as kernels see them: eight tiles of up to 16 rows x 64 bytes.
//
//   template <class Arch, amx::TileBackend Tile> void kernel(...) {
//     TileConfig config;  config.set(0, 16, 64);  config.set(1, 16, 64);  config.set(2, 16, 64);
//     Tile tile;
//     const AmxScope<Tile> scope(tile, config);            // once per task
//     tile.template zero<0>();
//     tile.template load<1>(a, 64);  tile.template load<2>(b, 64);   // strides in bytes
//     tile.template dp_s8u8<0, 1, 2>();
//     tile.template store<0>(c, 64);
//   }
//
// Backends: TileHw (tile_hw.h, the instructions) and TileEmu (tile_emu.h, plain C++ that also
// checks what the hardware would fault on). Production code instantiates TileHw only.
#pragma once

#include <concepts>
#include <cstdint>

#include "kernels/simd/arch.h"

namespace sprun::kernels::amx {

inline constexpr int kTiles = 8;
inline constexpr int kMaxTileRows = 16;
inline constexpr int kMaxTileBytes = 64;  // per row

// The 64 bytes that LDTILECFG reads. Tiles that are not set are absent.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  // entries 8.. are reserved
  uint8_t rows[16] = {};

  SPRUN_INLINE constexpr void set(int tile, int tile_rows, int tile_row_bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(tile_row_bytes);
  }
};
static_assert(sizeof(TileConfig) == 64);

// Names say the type of the A operand first: dp_s8u8<C, A, B> is
//   C[m, n] += sum over k < 4 * (bytes of a row of A / 4) of A[m, k] * B[k / 4, 4 n + k % 4]
// with s8 A and u8 B, modulo 2^32. dp_bf16 takes pairs instead of quads: sums of the even and of
// the odd products are kept apart in f32, added at the end, and added to C; denormals count as 0.
// A and C have the same rows, B and C the same row bytes, rows of B = row bytes of A / 4, and
// the three tiles differ.
template <class T>
concept TileBackend = requires(T t, const TileConfig& c, const void* in, void* out,
                               int64_t stride) {
  t.load_config(c);
  t.release();
  t.template zero<0>();
  t.template load<0>(in, stride);
  t.template load_streamed<0>(in, stride);
  t.template store<0>(out, stride);
  t.template dp_s8s8<0, 1, 2>();
  t.template dp_s8u8<0, 1, 2>();
  t.template dp_u8s8<0, 1, 2>();
  t.template dp_u8u8<0, 1, 2>();
  t.template dp_bf16<0, 1, 2>();
};

// Configures the tiles for one task and gives them back: a thread that keeps tiles in use pays for
// them in each context switch.
template <TileBackend Tile>
class AmxScope {
 public:
  SPRUN_INLINE AmxScope(Tile& tile, const TileConfig& config) : tile_(tile) {
    tile_.load_config(config);
  }
  SPRUN_INLINE ~AmxScope() { tile_.release(); }
  AmxScope(const AmxScope&) = delete;
  AmxScope& operator=(const AmxScope&) = delete;

 private:
  Tile& tile_;
};

}  // namespace sprun::kernels::amx
