// f32 block-sparse products with tokens as lanes, instantiated per Arch and pattern.
//
// A line of a slab is one input of all tokens. 4x1 and 16x4 use a line for four outputs or more;
// without a pattern each multiplication needs a load of its own, which is what bounds it.
#pragma once

#include "kernels/bsr_spmm/float_ends_impl.h"
#include "kernels/bsr_spmm/lines_impl.h"
#include "kernels/bsr_spmm/pack_x_impl.h"

namespace sprun::kernels::bsr {

template <class ArchT>
struct F32Lanes {
  using Arch = ArchT;
  using Acc = simd::F32<simd::VecArch<Arch>>;
  using Sum = float;
  using X = Acc;
  static constexpr int kInputs = 1;
  SPRUN_INLINE static X load(const uint8_t* p) {
    return Acc::load(reinterpret_cast<const float*>(p));
  }
  SPRUN_INLINE static Acc weight(const uint8_t* p) {
    float w;
    __builtin_memcpy(&w, p, 4);
    return Acc::broadcast(w);
  }
  SPRUN_INLINE static void accumulate(Acc& acc, X x, Acc w) { acc = Acc::fma(x, w, acc); }
};

template <class Arch>
struct F32Shape {
  static constexpr int kPassRows = 4, kPassVectors = 2, kSets = 1;
};
template <>
struct F32Shape<simd::Avx2> {
  static constexpr int kPassRows = 4, kPassVectors = 2, kSets = 2;
};
template <>
struct F32Shape<simd::Avx512> {
  static constexpr int kPassRows = 4, kPassVectors = 4, kSets = 2;
};

// kGroupSlabs: [K, filled up to whole blocks][slab_tokens].
template <class Arch, const BsrLayout& kLayout>
void pack_x_f32(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, float* out) {
  constexpr int64_t kSlab = kLayout.slab_tokens;
  pack_x_quads<Arch, kSlab>(reinterpret_cast<const uint8_t*>(x), 4 * ldx, m, 4 * k, slab,
                            reinterpret_cast<uint8_t*>(out));
  const int64_t end = x_slab_elements(kLayout, k);
  for (int64_t i = k * kSlab; i < end; ++i) out[i] = 0.0F;
}

template <class Arch, const BsrLayout& kLayout>
constexpr BsrF32Kernel make_f32(int64_t min_m) {
  using Runs = Lines<F32Lanes<Arch>, F32Shape<Arch>, kLayout>;
  using K = TokenLanes<LanesOps<Runs, FloatEnds<Arch, BsrF32Args, 4, kLayout>>>;
  return {kLayout, min_m, K::kScratchBytes, K::run, pack_x_f32<Arch, kLayout>};
}

}  // namespace sprun::kernels::bsr
