// u8 x s8 block-sparse products on AMX tiles: instantiated on the hardware by bsr_u8s8_amxint8.cc
// and, for tests, on its emulation by bsr_u8s8_amxemu.cc.
#pragma once

#include "kernels/bsr_spmm/amx_strips_impl.h"
#include "kernels/bsr_spmm/bsr_layouts.h"
#include "kernels/bsr_spmm/bsr_u8s8_impl.h"
#include "kernels/bsr_spmm/pack_x_impl.h"

namespace sprun::kernels::bsr {

// A is the weights (s8), B the activations (u8).
struct AmxDotS8U8 {
  static constexpr int kLines = 1;
  template <int kC, int kA, int kB, class Tile>
  SPRUN_INLINE static void dot(Tile& tile) {
    tile.template dp_s8u8<kC, kA, kB>();
  }
};

template <class Arch, amx::TileBackend Tile>
struct AmxU8S8 {
  // Zero points and the output are those of the other kernels with tokens as lanes.
  using Lanes = U8S8<Arch, kBsr16x4AmxU8S8>;
  using I = typename Lanes::I;

  // scratch: lines and weight tiles, sums [32][32], sums turned [16][32], starts [32].
  static constexpr int64_t kScratchBytes =
      kAmxBufferBytes + (kAmxUnit * kAmxSlab + kAmxLanes * kAmxUnit + kAmxUnit) * 4;

  static void run(const BsrU8S8Args& args, const BsrRange& range, void* scratch) {
    uint8_t* buffers = static_cast<uint8_t*>(scratch);
    int32_t* sums = reinterpret_cast<int32_t*>(buffers + kAmxBufferBytes);
    int32_t* turned = sums + kAmxUnit * kAmxSlab;
    int32_t* start = turned + kAmxLanes * kAmxUnit;
    const GemmU8S8Args& gemm = args.gemm;
    const int64_t slab_bytes = x_slab_elements(kBsr16x4AmxU8S8, gemm.k);
    Tile tile;
    const amx::AmxScope<Tile> scope(tile, amx_config());
    for_each_unit(kBsr16x4AmxU8S8, range, gemm.m, [&](int64_t s, int64_t u, int64_t tokens) {
      Lanes::start_unit(gemm, u, tokens, start, sums);
      for (int64_t r = 0; r < kAmxUnit; ++r) {
        const I value = I::broadcast(start[r]);
        for (int64_t t = 0; t < kAmxSlab; t += I::kLanes) value.store(sums + r * kAmxSlab + t);
      }
      amx_add_unit<Arch, AmxDotS8U8>(tile, args.w, u, args.slabs + s * slab_bytes, tokens, sums,
                                     buffers);
      Lanes::finish_unit(gemm, s * kAmxSlab, tokens, u, sums, turned);
    });
  }
};

// Taken from 16 rows: below, a C tile has unused columns and vectors do better.
template <class Arch, amx::TileBackend Tile>
constexpr BsrU8S8Kernel make_amx_u8s8() {
  using K = AmxU8S8<Arch, Tile>;
  return {kBsr16x4AmxU8S8, 16, K::kScratchBytes, K::run, pack_x_quads<Arch, kAmxSlab>};
}

}  // namespace sprun::kernels::bsr
