// TileBackend in plain C++, for tests on machines without AMX. Never selected by itself.
//
// An instruction that the hardware would fault on does nothing, and its fault is kept for the
// thread: tests end with EXPECT_EQ(amx::take_tile_fault(), amx::TileFault::kNone).
// Include it only in files without instruction-set flags.
#pragma once

#include "kernels/amx/tile_state.h"

namespace sprun::kernels::amx {

// The first fault of any TileEmu on this thread since the last call; kNone when there was none.
TileFault take_tile_fault();
// Keeps `fault` for take_tile_fault() unless an older one waits there.
void note_tile_fault(TileFault fault);

class TileEmu {
 public:
  void load_config(const TileConfig& config) { note_tile_fault(tile_load_config(state_, &config)); }
  void release() { tile_release(state_); }

  template <int kTile>
  void zero() {
    note_tile_fault(tile_zero(state_, kTile));
  }
  template <int kTile>
  void load(const void* from, int64_t stride) {
    note_tile_fault(tile_load(state_, kTile, from, stride));
  }
  template <int kTile>
  void load_streamed(const void* from, int64_t stride) {
    load<kTile>(from, stride);
  }
  template <int kTile>
  void store(void* to, int64_t stride) {
    note_tile_fault(tile_store(state_, kTile, to, stride));
  }

  template <int kC, int kA, int kB>
  void dp_s8s8() {
    note_tile_fault(tile_dot(state_, TileDot::kS8S8, kC, kA, kB));
  }
  template <int kC, int kA, int kB>
  void dp_s8u8() {
    note_tile_fault(tile_dot(state_, TileDot::kS8U8, kC, kA, kB));
  }
  template <int kC, int kA, int kB>
  void dp_u8s8() {
    note_tile_fault(tile_dot(state_, TileDot::kU8S8, kC, kA, kB));
  }
  template <int kC, int kA, int kB>
  void dp_u8u8() {
    note_tile_fault(tile_dot(state_, TileDot::kU8U8, kC, kA, kB));
  }
  template <int kC, int kA, int kB>
  void dp_bf16() {
    note_tile_fault(tile_dot(state_, TileDot::kBf16, kC, kA, kB));
  }

 private:
  TileState state_;
};
static_assert(TileBackend<TileEmu>);

}  // namespace sprun::kernels::amx
