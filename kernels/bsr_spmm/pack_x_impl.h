// Copies rows of u8 activations into slabs, see XLayout.
#pragma once

#include "kernels/bsr_spmm/token_lanes_impl.h"
#include "kernels/simd/interleave.h"
#include "kernels/simd/transpose.h"

namespace sprun::kernels::bsr {

// quads[q * 16 + t] = the four bytes of quad q of token t, for 16 quads and up to 16 tokens; tokens
// past `tokens` and inputs past `k_left` are 0.
template <class Arch>
SPRUN_INLINE void turn_quads(const uint8_t* x, int64_t ldx, int64_t tokens, int64_t k_left,
                             uint32_t* quads) {
  using V = simd::F32<simd::VecArch<Arch>>;
  constexpr int kLanes = V::kLanes;
  alignas(64) uint8_t edge[16 * 64];
  if (tokens < 16 || k_left < 64) {
    const int64_t bytes = min_of(k_left, 64);
    __builtin_memset(edge, 0, sizeof(edge));
    for (int64_t t = 0; t < tokens; ++t) __builtin_memcpy(edge + t * 64, x + t * ldx, bytes);
    x = edge;
    ldx = 64;
  }
  for (int t = 0; t < 16; t += kLanes) {
    for (int q = 0; q < 16; q += kLanes) {
      V v[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        v[i] = V::load(reinterpret_cast<const float*>(x + (t + i) * ldx + 4 * q));
      }
      simd::transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        v[i].store(reinterpret_cast<float*>(quads + (q + i) * 16 + t));
      }
    }
  }
}

// kGroupSlabs: [ceil(K / 4)][kSlab][4].
template <class Arch, int64_t kSlab>
void pack_x_quads(const uint8_t* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, uint8_t* out) {
  alignas(64) uint32_t quads[16 * 16];
  const int64_t m0 = slab * kSlab, end = min_of(m, m0 + kSlab), num_quads = (k + 3) / 4;
  for (int64_t t = m0; t < end; t += 16) {
    for (int64_t k0 = 0; k0 < k; k0 += 64) {
      turn_quads<Arch>(x + t * ldx + k0, ldx, min_of(16, end - t), k - k0, quads);
      const int64_t count = min_of(16, num_quads - k0 / 4);
      for (int64_t q = 0; q < count; ++q) {
        __builtin_memcpy(out + ((k0 / 4 + q) * kSlab + t - m0) * 4, quads + q * 16, 64);
      }
    }
  }
}

// kColumnSlabs: [K][64] in the token order of XLayout.
template <class Arch>
void pack_x_columns(const uint8_t* x, int64_t ldx, int64_t m, int64_t k, int64_t slab,
                    uint8_t* out) {
  using S = simd::Interleave<simd::VecArch<Arch>>;
  using Raw = typename S::Raw;
  constexpr int64_t kSlab = 64, kLanes = simd::I32<simd::VecArch<Arch>>::kLanes;
  alignas(64) uint32_t quads[4][16 * 16];
  const int64_t m0 = slab * kSlab, end = min_of(m, m0 + kSlab);
  for (int64_t v = 0; v < 4 && m0 + 16 * v >= end; ++v) __builtin_memset(quads[v], 0, 1024);
  for (int64_t k0 = 0; k0 < k; k0 += 64) {
    for (int64_t v = 0; v < 4; ++v) {
      const int64_t t = m0 + 16 * v;
      const int64_t tokens = end - t < 16 ? (end > t ? end - t : 0) : 16;
      turn_quads<Arch>(x + t * ldx + k0, ldx, tokens, k - k0, quads[v]);
    }
    const int64_t inputs = min_of(64, k - k0);
    for (int64_t i = 0; i < inputs; i += 4) {
      for (int64_t at = 0; at < 16; at += kLanes) {  // dword 4 L + e of a vector: token 4 L + e
        Raw r[4];
#pragma GCC unroll 4
        for (int v = 0; v < 4; ++v) r[v] = S::turn4(S::load(quads[v] + i / 4 * 16 + at));
        const Raw a = S::low32(r[0], r[1]), b = S::high32(r[0], r[1]);
        const Raw c = S::low32(r[2], r[3]), d = S::high32(r[2], r[3]);
        const Raw rows[4] = {S::low64(a, c), S::high64(a, c), S::low64(b, d), S::high64(b, d)};
        uint8_t* to = out + (k0 + i) * kSlab + 4 * at;
        for (int64_t j = 0; j < 4 && i + j < inputs; ++j) S::store(to + j * kSlab, rows[j]);
      }
    }
  }
}

}  // namespace sprun::kernels::bsr
