// u8 x s8 block-sparse products on AMX tiles: instantiated on the hardware by bsr_u8s8_amxint8.cc
// and, for tests, on its emulation by bsr_u8s8_amxemu.cc.
#pragma once

#include "kernels/bsr_spmm/amx_strips_impl.h"
#include "kernels/bsr_spmm/bsr_layouts.h"
#include "kernels/bsr_spmm/pack_x_impl.h"
#include "kernels/bsr_spmm/token_lanes_impl.h"
#include "kernels/gemm/finish_u8s8_impl.h"

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
  using I = typename simd::Dot4<Arch>::Acc;
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr int64_t kSums = kAmxUnit * kAmxSlab;
  // scratch: lines and weight tiles, sums [32][32], 16 tokens of them turned around [16][32].
  static constexpr int64_t kScratchBytes = kAmxBufferBytes + (kSums + kAmxLanes * kAmxUnit) * 4;

  // Sums start from 0, or -zero point * (sum of the weights) where one zero point serves all rows.
  static void start_unit(const GemmU8S8Args& args, int64_t u, int32_t* sums) {
    const bool common = args.x_zero_point != nullptr && args.x_zero_point_stride == 0;
    const int32_t zero = common ? *args.x_zero_point : 0;
    for (int64_t r = 0; r < kAmxUnit; ++r) {
      const I start = I::broadcast(zero == 0 ? 0 : -zero * args.w_sum[u * kAmxUnit + r]);
      for (int64_t t = 0; t < kAmxSlab; t += I::kLanes) start.store(sums + r * kAmxSlab + t);
    }
  }

  // Y of one unit and 16 tokens or fewer.
  static void finish_tokens(const GemmU8S8Args& args, int64_t m, int64_t rows, int64_t u,
                            const int32_t* sums, int32_t* turned) {
    const int64_t n0 = u * kAmxUnit;
    for (int64_t c = 0; c < kAmxUnit; c += kAmxLanes) {
      turn_16x16<Arch>(
          sums + c * kAmxSlab, kAmxSlab, [&](int i, int j, V v) __attribute__((always_inline)) {
            I::as_i32(v).store(turned + i * kAmxUnit + c + j);
          });
    }
    if (args.x_zero_point != nullptr && args.x_zero_point_stride != 0) {
      for (int64_t r = 0; r < rows; ++r) {
        const I zero = I::broadcast(args.x_zero_point[(m + r) * args.x_zero_point_stride]);
        for (int64_t c = 0; c < kAmxUnit; c += I::kLanes) {
          int32_t* at = turned + r * kAmxUnit + c;
          (I::load(at) - zero * I::load(args.w_sum + n0 + c)).store(at);
        }
      }
    }
    gemm::FinishU8S8<Arch, kAmxUnit>::run(args, m, rows, n0, min_of(kAmxUnit, args.n - n0), turned);
  }

  static void run(const BsrU8S8Args& args, const BsrRange& range, void* scratch) {
    uint8_t* buffers = static_cast<uint8_t*>(scratch);
    int32_t* sums = reinterpret_cast<int32_t*>(buffers + kAmxBufferBytes);
    int32_t* turned = sums + kSums;
    const GemmU8S8Args& gemm = args.gemm;
    const int64_t slab_bytes = x_slab_elements(kBsr16x4AmxU8S8, gemm.k);
    Tile tile;
    const amx::AmxScope<Tile> scope(tile, amx_config());
    for_each_unit(kBsr16x4AmxU8S8, range, gemm.m, [&](int64_t s, int64_t u, int64_t tokens) {
      start_unit(gemm, u, sums);
      amx_add_unit<Arch, AmxDotS8U8>(tile, args.w, u, args.slabs + s * slab_bytes, tokens, sums,
                                     buffers);
      for (int64_t t = 0; t < tokens; t += kAmxLanes) {
        finish_tokens(gemm, s * kAmxSlab + t, min_of(kAmxLanes, tokens - t), u, sums + t, turned);
      }
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
