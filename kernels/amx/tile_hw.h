// TileBackend on the instructions themselves.
//
// Inline assembly, because g++ 12's _tile_* macros paste the tile number into the text, so that a
// template parameter does not assemble, and its _tile_loadd lacks the memory clobber: stores to the
// buffer that is loaded next could move behind it. The compiler knows nothing of tiles; their order
// is kept because every statement is volatile.
// The caller makes sure that the CPU has AMX and that the process may use it (isa.h).
#pragma once

#include "kernels/amx/tile.h"

namespace sprun::kernels::amx {

struct TileHw {
  SPRUN_INLINE void load_config(const TileConfig& config) const {
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  SPRUN_INLINE void release() const { asm volatile("tilerelease" : : : "memory"); }

  template <int kTile>
  SPRUN_INLINE void zero() const {
    static_assert(kTile >= 0 && kTile < kTiles);
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }

  template <int kTile>
  SPRUN_INLINE void load(const void* from, int64_t stride) const {
    static_assert(kTile >= 0 && kTile < kTiles);
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(kTile) : "memory");
  }

  // The same for data that is not read again soon.
  template <int kTile>
  SPRUN_INLINE void load_streamed(const void* from, int64_t stride) const {
    static_assert(kTile >= 0 && kTile < kTiles);
    asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2"
                 :
                 : "r"(from), "r"(stride), "i"(kTile)
                 : "memory");
  }

  template <int kTile>
  SPRUN_INLINE void store(void* to, int64_t stride) const {
    static_assert(kTile >= 0 && kTile < kTiles);
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(kTile) : "memory");
  }

#define SPRUN_TILE_DOT(name, instruction)                                                      \
  template <int kC, int kA, int kB>                                                            \
  SPRUN_INLINE void name() const {                                                             \
    static_assert(kC != kA && kC != kB && kA != kB);                                           \
    static_assert(kC >= 0 && kC < kTiles && kA >= 0 && kA < kTiles && kB >= 0 && kB < kTiles); \
    asm volatile(instruction " %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));   \
  }
  SPRUN_TILE_DOT(dp_s8s8, "tdpbssd")
  SPRUN_TILE_DOT(dp_s8u8, "tdpbsud")
  SPRUN_TILE_DOT(dp_u8s8, "tdpbusd")
  SPRUN_TILE_DOT(dp_u8u8, "tdpbuud")
  SPRUN_TILE_DOT(dp_bf16, "tdpbf16ps")
#undef SPRUN_TILE_DOT
};
static_assert(TileBackend<TileHw>);

}  // namespace sprun::kernels::amx
