// bf16 block-sparse products on AMX tiles: instantiated on the hardware by bsr_bf16_amxbf16.cc and,
// for tests, on its emulation by bsr_bf16_amxemu.cc. Denormals count as 0.
#pragma once

#include "kernels/bsr_spmm/amx_strips_impl.h"
#include "kernels/bsr_spmm/bsr_layouts.h"
#include "kernels/bsr_spmm/pack_x_bf16_impl.h"
#include "kernels/bsr_spmm/token_lanes_impl.h"
#include "kernels/gemm/epilogue_impl.h"

namespace sprun::kernels::bsr {

// Y of one unit from its sums [kUnit][kSlab]; `turned` holds 16 x 16.
template <class Arch, int64_t kUnit, int64_t kSlab>
void finish_bf16_unit(const GemmBf16Args& args, int64_t m, int64_t tokens, int64_t u,
                      const float* sums, float* turned) {
  using V = simd::F32<simd::VecArch<Arch>>;
  const Epilogue& e = args.epilogue;
  const V alpha = V::broadcast(e.alpha);
  const int64_t end = min_of((u + 1) * kUnit, args.n);
  for (int64_t n0 = u * kUnit; n0 < end; n0 += 16, sums += 16 * kSlab) {
    const int64_t cols = min_of(16, end - n0);
    for (int64_t t = 0; t < tokens; t += 16) {
      const int64_t rows = min_of(16, tokens - t);
      const gemm::DirectOut out(e, args.y, args.ldy, m + t, n0, rows == 16 && cols == 16);
      if (out.y != nullptr) {
        turn_16x16<Arch>(
            sums + t, kSlab, [&](int i, int c, V v) __attribute__((always_inline)) {
              out.write(i, c, v, alpha);
            });
        continue;
      }
      turn_16x16<Arch>(
          sums + t, kSlab, [&](int i, int c, V v) __attribute__((always_inline)) {
            v.store(turned + i * 16 + c);
          });
      gemm::finish_f32<Arch, 16>(e, args.y, args.ldy, m + t, rows, n0, cols, turned);
    }
  }
}

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
      finish_bf16_unit<Arch, kAmxUnit, kAmxSlab>(args.gemm, s * kAmxSlab, tokens, u, sums, turned);
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
