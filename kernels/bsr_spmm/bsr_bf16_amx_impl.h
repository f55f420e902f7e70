// bf16 block-sparse products on AMX tiles: instantiated on the hardware by bsr_bf16_amxbf16.cc and,
// for tests, on its emulation by bsr_bf16_amxemu.cc. Denormals count as 0.
#pragma once

#include "kernels/bsr_spmm/amx_strips_impl.h"
#include "kernels/bsr_spmm/bsr_layouts.h"
#include "kernels/bsr_spmm/float_ends_impl.h"
#include "kernels/bsr_spmm/pack_x_bf16_impl.h"

namespace sprun::kernels::bsr {

// A is the weights, B the activations; a block of four inputs is two lines of pairs.
struct AmxDotBf16 {
  static constexpr int kLines = 2;
  template <int kC, int kA, int kB, class Tile>
  SPRUN_INLINE static void dot(Tile& tile) {
    tile.template dp_bf16<kC, kA, kB>();
  }
};

template <class Arch, amx::TileBackend Tile>
struct AmxBf16 {
  static constexpr int64_t kSums = kAmxUnit * kAmxSlab;
  // scratch: lines and weight tiles, sums [32][32], sums turned [16][16].
  static constexpr int64_t kScratchBytes = kAmxBufferBytes + (kSums + kAmxLanes * kAmxLanes) * 4;

  using Ends = FloatEnds<Arch, BsrBf16Args, 2, kBsr16x4AmxBf16>;
  using Lanes = TokenLanes<Ends>;

  // Y of one unit from its sums; `turned` holds 16 x 16.
  static void finish_unit(const GemmBf16Args& args, int64_t m, int64_t tokens, int64_t u,
                          const float* sums, float* turned) {
    const int64_t end = min_of((u + 1) * kAmxUnit, args.n);
    for (int64_t n0 = u * kAmxUnit; n0 < end; n0 += kAmxLanes, sums += kAmxLanes * kAmxSlab) {
      for (int64_t t = 0; t < tokens; t += kAmxLanes) {
        const int64_t rows = min_of(kAmxLanes, tokens - t);
        if (!Ends::needs_tiles(args)) {
          Lanes::finish_direct(args, m + t, rows, n0, sums + t);
          continue;
        }
        Lanes::turn(sums + t, turned, kAmxLanes);
        const int64_t cols = min_of(kAmxLanes, end - n0);
        Ends::template finish_tile<kAmxLanes>(args, m + t, rows, n0, cols, turned);
      }
    }
  }

  static void run(const BsrBf16Args& args, const BsrRange& range, void* scratch) {
    uint8_t* buffers = static_cast<uint8_t*>(scratch);
    float* sums = reinterpret_cast<float*>(buffers + kAmxBufferBytes);
    float* turned = sums + kSums;
    const int64_t slab_size = x_slab_elements(kBsr16x4AmxBf16, args.gemm.k);
    Tile tile;
    const amx::AmxScope<Tile> scope(tile, amx_config());
    for_each_unit(kBsr16x4AmxBf16, range, args.gemm.m, [&](int64_t s, int64_t u, int64_t tokens) {
      __builtin_memset(sums, 0, kSums * 4);
      const auto* slab = reinterpret_cast<const uint8_t*>(args.slabs + s * slab_size);
      amx_add_unit<Arch, AmxDotBf16>(tile, args.w, u, slab, tokens, sums, buffers);
      finish_unit(args.gemm, s * kAmxSlab, tokens, u, sums, turned);
    });
  }
};

// Taken from 16 rows, as the u8 x s8 kernel.
template <class Arch, amx::TileBackend Tile>
constexpr BsrBf16Kernel make_amx_bf16() {
  using K = AmxBf16<Arch, Tile>;
  return {kBsr16x4AmxBf16, 16, K::kScratchBytes, K::run, pack_x_pairs<Arch, kAmxSlab>};
}

}  // namespace sprun::kernels::bsr
