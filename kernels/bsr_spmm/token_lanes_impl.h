// What all kernels with tokens as lanes share: the walk over slabs, units and runs, and turning the
// sums of a unit around for the row-major output.
//
// A unit's sums are kept as [unit_rows][kSlab]; a kernel adds each run to its block of rows.
#pragma once

#include "kernels/bsr_spmm/bsr_layouts.h"
#include "kernels/simd/transpose.h"

namespace sprun::kernels::bsr {

// Turns 16 outputs x 16 tokens, sums[c * ld + t] of 4 bytes each, around: write(t, c, v) gets
// outputs c .. c + kLanes - 1 of token t, for each t once per c.
template <class Arch, class Write>
SPRUN_INLINE void turn_16x16(const void* sums, int64_t ld, const Write& write) {
  using V = simd::F32<simd::VecArch<Arch>>;
  constexpr int kLanes = V::kLanes;
  const float* in = static_cast<const float*>(sums);
  for (int t = 0; t < 16; t += kLanes) {
    for (int c = 0; c < 16; c += kLanes) {
      V v[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) v[i] = V::load(in + (c + i) * ld + t);
      simd::transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) write(t + i, c, v[i]);
    }
  }
}

SPRUN_INLINE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

// Calls unit(slab, u, tokens) for every unit of the range; tokens counts the rows of the slab.
template <class Unit>
SPRUN_INLINE void for_each_unit(const BsrLayout& layout, const BsrRange& range, int64_t m,
                                const Unit& unit) {
  for (int64_t s = range.slab_begin; s < range.slab_end; ++s) {
    const int64_t tokens = min_of(layout.slab_tokens, m - s * layout.slab_tokens);
    for (int64_t u = range.unit_begin; u < range.unit_end; ++u) unit(s, u, tokens);
  }
}

}  // namespace sprun::kernels::bsr
