// Rounds rows of f32 activations to bf16 and copies them into slabs, see XLayout.
#pragma once

#include "kernels/bsr_spmm/pack_x_impl.h"

namespace sprun::kernels::bsr {

inline constexpr int64_t kPairInputs = 32;  // of one turn: 16 pairs

// pairs[p * 16 + t] = inputs 2 p and 2 p + 1 of token t, for 16 pairs and up to 16 tokens; tokens
// past `tokens` and inputs past `k_left` are 0.
template <class Arch>
SPRUN_INLINE void turn_pairs(const float* x, int64_t ldx, int64_t tokens, int64_t k_left,
                             uint32_t* pairs) {
  using V = simd::F32<simd::VecArch<Arch>>;
  alignas(64) uint16_t rows[16 * kPairInputs];
  const int64_t inputs = min_of(kPairInputs, k_left);
  if (tokens < 16 || inputs < kPairInputs) __builtin_memset(rows, 0, sizeof(rows));
  for (int64_t r = 0; r < tokens; ++r) {
    const float* in = x + r * ldx;
    uint16_t* to = rows + r * kPairInputs;
    int64_t i = 0;
    for (; i + V::kLanes <= inputs; i += V::kLanes) V::load(in + i).store_bf16(to + i);
    if (i < inputs) V::load_partial(in + i, inputs - i).store_bf16_partial(to + i, inputs - i);
  }
  turn_quads<Arch>(reinterpret_cast<const uint8_t*>(rows), 2 * kPairInputs, 16, 64, pairs);
}

// kGroupSlabs of bf16 pairs: [2 ceil(K / 4)][kSlab][2].
template <class Arch, int64_t kSlab>
void pack_x_pairs(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, uint16_t* out) {
  alignas(64) uint32_t pairs[16 * 16];
  const int64_t m0 = slab * kSlab, end = min_of(m, m0 + kSlab), num_pairs = (k + 3) / 4 * 2;
  for (int64_t t = m0; t < end; t += 16) {
    for (int64_t k0 = 0; k0 < k; k0 += kPairInputs) {
      turn_pairs<Arch>(x + t * ldx + k0, ldx, min_of(16, end - t), k - k0, pairs);
      const int64_t count = min_of(16, num_pairs - k0 / 2);
      for (int64_t p = 0; p < count; ++p) {
        __builtin_memcpy(out + ((k0 / 2 + p) * kSlab + t - m0) * 2, pairs + p * 16, 64);
      }
    }
  }
}

// kColumnSlabs: [K][64] in the token order of XLayout.
template <class Arch>
void pack_x_bf16_columns(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t slab,
                         uint16_t* out) {
  using S = simd::Interleave<simd::VecArch<Arch>>;
  constexpr int64_t kSlab = 64, kLanes = simd::I32<simd::VecArch<Arch>>::kLanes;
  alignas(64) uint32_t pairs[2][16 * 16];
  const int64_t m0 = slab * kSlab, end = min_of(m, m0 + kSlab);
  for (int64_t half = 0; half < 2 && m0 + 32 * half < end; ++half) {
    for (int64_t k0 = 0; k0 < k; k0 += kPairInputs) {
      for (int64_t v = 0; v < 2; ++v) {
        const int64_t t = m0 + 32 * half + 16 * v;
        if (t < end) turn_pairs<Arch>(x + t * ldx + k0, ldx, min_of(16, end - t), k - k0, pairs[v]);
        else __builtin_memset(pairs[v], 0, sizeof(pairs[v]));
      }
      const int64_t inputs = min_of(kPairInputs, k - k0);
      for (int64_t i = 0; i < inputs; i += 2) {
        for (int64_t at = 0; at < 16; at += kLanes) {
          const auto a = S::load(pairs[0] + i * 8 + at), b = S::load(pairs[1] + i * 8 + at);
          uint16_t* to = out + (k0 + i) * kSlab + 32 * half + 2 * at;
          S::store(to, S::even16(a, b));
          if (i + 1 < inputs) S::store(to + kSlab, S::odd16(a, b));
        }
      }
    }
  }
}

}  // namespace sprun::kernels::bsr
