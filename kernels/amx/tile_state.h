// What each tile instruction does, in plain C++: the one place where this is written down. TileEmu
// and the instruction emulator of the tests (tests/support/amx_sigill.h) both call it.
//
// Every function checks what the hardware faults on; on a fault it changes nothing and says why.
// Stricter than the hardware in two points that no kernel here needs: a configuration must start at
// row 0, and the rows of every tile that is used are whole dwords.
// Thread safety: none for one TileState. Nothing here allocates or locks, so signal handlers may
// call it. Source: instruction set reference, AMX chapter.
#pragma once

#include <cstdint>

#include "kernels/amx/tile.h"

namespace sprun::kernels::amx {

enum class TileFault : uint8_t {
  kNone,
  kBadPalette,       // neither 0 nor 1
  kReservedNotZero,  // in the configuration
  kTooManyRows,      // > 16
  kRowTooLong,       // > 64 bytes
  kHalfEmpty,        // rows without bytes or bytes without rows
  kNotConfigured,    // no configuration is loaded
  kTileAbsent,       // the configuration does not have this tile, or there is no such tile
  kNotDwords,        // row bytes are no multiple of 4
  kSameTile,         // operands of a product are not three tiles
  kShapesDisagree,   // of the operands of a product
};

// "shapes disagree" and so on; static storage.
const char* tile_fault_text(TileFault fault);

enum class TileDot : uint8_t { kS8S8, kS8U8, kU8S8, kU8U8, kBf16 };  // types of A, B

struct TileState {
  constexpr TileState() { config.palette = 0; }
  bool configured() const { return config.palette != 0; }

  TileConfig config;  // palette 0: not configured
  alignas(64) uint8_t data[kTiles][kMaxTileRows][kMaxTileBytes] = {};
};

// LDTILECFG: palette 0 releases the tiles; otherwise all tiles become 0. `from`: 64 bytes.
TileFault tile_load_config(TileState& state, const void* from);
// STTILECFG: 64 bytes, all 0 when nothing is configured.
void tile_store_config(const TileState& state, void* to);
void tile_release(TileState& state);
TileFault tile_zero(TileState& state, int tile);
// Row r of the tile is at `from` + r * stride (bytes); rows and bytes past its shape become 0.
TileFault tile_load(TileState& state, int tile, const void* from, int64_t stride);
TileFault tile_store(const TileState& state, int tile, void* to, int64_t stride);
// C += A * B; see TileBackend.
TileFault tile_dot(TileState& state, TileDot dot, int c, int a, int b);

}  // namespace sprun::kernels::amx
