// What bf16 block-sparse products with tokens as lanes share: slabs from f32 rows, and sums to Y.
#pragma once

#include "kernels/bsr_spmm/bsr_layouts.h"
#include "kernels/bsr_spmm/pack_x_impl.h"
#include "kernels/bsr_spmm/token_lanes_impl.h"
#include "kernels/gemm/epilogue_impl.h"

namespace sprun::kernels::bsr {

// kGroupSlabs of bf16 pairs: [2 ceil(K / 4)][kSlab][2].
template <class Arch, int64_t kSlab>
void pack_x_pairs(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, uint16_t* out) {
  using V = simd::F32<simd::VecArch<Arch>>;
  constexpr int64_t kInputs = 32;  // of one turn: 16 pairs
  alignas(64) uint16_t rows[16 * kInputs];
  alignas(64) uint32_t pairs[16 * 16];
  const int64_t m0 = slab * kSlab, end = min_of(m, m0 + kSlab), num_pairs = (k + 3) / 4 * 2;
  for (int64_t t = m0; t < end; t += 16) {
    const int64_t tokens = min_of(16, end - t);
    for (int64_t k0 = 0; k0 < k; k0 += kInputs) {
      const int64_t inputs = min_of(kInputs, k - k0);
      if (tokens < 16 || inputs < kInputs) __builtin_memset(rows, 0, sizeof(rows));
      for (int64_t r = 0; r < tokens; ++r) {
        const float* in = x + (t + r) * ldx + k0;
        uint16_t* to = rows + r * kInputs;
        int64_t i = 0;
        for (; i + V::kLanes <= inputs; i += V::kLanes) V::load(in + i).store_bf16(to + i);
        if (i < inputs) {
          V::load_partial(in + i, inputs - i).store_bf16_partial(to + i, inputs - i);
        }
      }
      turn_quads<Arch>(reinterpret_cast<const uint8_t*>(rows), 2 * kInputs, 16, 64, pairs);
      const int64_t count = min_of(16, num_pairs - k0 / 2);
      for (int64_t p = 0; p < count; ++p) {
        __builtin_memcpy(out + ((k0 / 2 + p) * kSlab + t - m0) * 2, pairs + p * 16, 64);
      }
    }
  }
}

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

}  // namespace sprun::kernels::bsr
