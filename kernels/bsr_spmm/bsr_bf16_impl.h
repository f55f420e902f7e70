// bf16 block-sparse products with tokens as lanes, instantiated per Arch and pattern.
//
// 16x4 blocks multiply lines of pairs as they are (lines_impl.h); Rx1 blocks make the pairs from
// two columns of X (columns_impl.h). Without a bf16 instruction halves of pairs are widened to f32.
#pragma once

#include "kernels/bsr_spmm/columns_impl.h"
#include "kernels/bsr_spmm/float_ends_impl.h"
#include "kernels/bsr_spmm/lines_impl.h"
#include "kernels/bsr_spmm/pack_x_bf16_impl.h"
#include "kernels/simd/dot2.h"
#include "kernels/simd/interleave.h"

namespace sprun::kernels::bsr {

// The low or high halves of two rows of bf16, put together to pairs.
template <class Arch>
struct PairUp {
  using VecArch = simd::VecArch<Arch>;
  using S = simd::Interleave<VecArch>;
  using I = simd::I32<VecArch>;
  using X = typename simd::Dot2<Arch>::A;
  SPRUN_INLINE static X low(typename S::Raw a, typename S::Raw b) {
    const typename S::Raw zero = I::zero().v;
    return {I{S::low16(zero, a)}.as_f32(), I{S::low16(zero, b)}.as_f32()};
  }
  SPRUN_INLINE static X high(typename S::Raw a, typename S::Raw b) {
    const typename S::Raw zero = I::zero().v;
    return {I{S::high16(zero, a)}.as_f32(), I{S::high16(zero, b)}.as_f32()};
  }
};
#if defined(__AVX512BF16__)
template <>
struct PairUp<simd::Avx512Bf16> {
  using X = __m512bh;
  SPRUN_INLINE static X low(__m512i a, __m512i b) {
    return reinterpret_cast<__m512bh>(_mm512_unpacklo_epi16(a, b));
  }
  SPRUN_INLINE static X high(__m512i a, __m512i b) {
    return reinterpret_cast<__m512bh>(_mm512_unpackhi_epi16(a, b));
  }
};
#endif

template <class ArchT>
struct Bf16Lanes {
  using Arch = ArchT;
  using Dot = simd::Dot2<Arch>;
  using Acc = typename Dot::Acc;
  using Sum = float;
  using X = typename Dot::A;
  static constexpr int kInputs = 2;
  static constexpr bool kSkipsPadding = true;
  SPRUN_INLINE static X load(const uint8_t* p) {
    return Dot::load(reinterpret_cast<const uint16_t*>(p));
  }
  // Each half of a row, 32 tokens, holds two vectors side by side.
  template <int kFirst, int kCount>
  SPRUN_INLINE static void columns(const uint8_t* const (&rows)[2], X (&x)[kCount]) {
    using S = simd::Interleave<simd::VecArch<Arch>>;
#pragma GCC unroll 4
    for (int v = 0; v < kCount; ++v) {
      const int half = (kFirst + v) / 2;
      const auto a = S::load(rows[0] + 64 * half), b = S::load(rows[1] + 64 * half);
      x[v] = (kFirst + v) % 2 == 0 ? PairUp<Arch>::low(a, b) : PairUp<Arch>::high(a, b);
    }
  }
  SPRUN_INLINE static X weight(const uint8_t* p) {
    return Dot::broadcast(simd::load_pair(reinterpret_cast<const uint16_t*>(p)));
  }
  SPRUN_INLINE static void accumulate(Acc& acc, X x, X w) { Dot::accumulate(acc, x, w); }
};

template <class Arch>
struct Bf16Shape {
  static constexpr int kColumnVectors = 2, kPassRows = 4, kPassVectors = 2, kSets = 1;
};
template <>
struct Bf16Shape<simd::Avx512> {
  static constexpr int kColumnVectors = 4, kPassRows = 4, kPassVectors = 4, kSets = 2;
};
template <>
struct Bf16Shape<simd::Avx512Bf16> {
  static constexpr int kColumnVectors = 4, kPassRows = 4, kPassVectors = 4, kSets = 2;
};

template <class Arch, const BsrLayout& kLayout>
constexpr BsrBf16Kernel make_bf16(int64_t min_m) {
  using Ends = FloatEnds<Arch, BsrBf16Args, 2, kLayout>;
  if constexpr (kLayout.x_layout == XLayout::kColumnSlabs) {
    using K = TokenLanes<LanesOps<Columns<Bf16Lanes<Arch>, Bf16Shape<Arch>, kLayout>, Ends>>;
    return {kLayout, min_m, K::kScratchBytes, K::run, pack_x_bf16_columns<Arch>};
  } else {
    using K = TokenLanes<LanesOps<Lines<Bf16Lanes<Arch>, Bf16Shape<Arch>, kLayout>, Ends>>;
    return {kLayout, min_m, K::kScratchBytes, K::run, pack_x_pairs<Arch, kLayout.slab_tokens>};
  }
}

}  // namespace sprun::kernels::bsr
