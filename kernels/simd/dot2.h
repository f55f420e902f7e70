// Dot2<Arch>: float lanes += sums of two bf16 products.
//
//   acc[i] += a[0] * b[2 i] + a[1] * b[2 i + 1]     a: one row's pair, b: bf16 pairs
// split(q) makes an operand from a whole register: a[2 i], a[2 i + 1] instead of a[0], a[1].
// Outputs as lanes: acc = add(acc, broadcast(x pair), load(weights)). Tokens as lanes:
// accumulate(acc, load(x), broadcast(weight pair)), in place as in dot4.h.
// avx512_bf16 has one instruction, which treats denormals as 0 and adds the two products in one
// step; elsewhere both halves are widened to f32 and fused-multiply-added. Same layout everywhere.
#pragma once

#include "kernels/simd/vec.h"

namespace sprun::kernels::simd {

SPRUN_INLINE int32_t load_pair(const uint16_t* p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, 4);
  return pair;
}

template <class Arch>
struct Dot2 {
  using Acc = F32<VecArch<Arch>>;
  using I = I32<VecArch<Arch>>;
  struct A {
    Acc low, high;
  };
  using B = A;
  SPRUN_INLINE static A split(I pair) {
    return {pair.template shl<16>().as_f32(),
            (pair & I::broadcast(static_cast<int32_t>(0xffff0000U))).as_f32()};
  }
  SPRUN_INLINE static A broadcast(int32_t pair) { return split(I::broadcast(pair)); }
  SPRUN_INLINE static B load(const uint16_t* p) {
    return split(I::load(reinterpret_cast<const int32_t*>(p)));
  }
  SPRUN_INLINE static Acc add(Acc acc, A a, B b) {
    return Acc::fma(a.high, b.high, Acc::fma(a.low, b.low, acc));
  }
  SPRUN_INLINE static void accumulate(Acc& acc, A a, B b) { acc = add(acc, a, b); }
};

#if defined(__AVX512BF16__)
template <>
struct Dot2<Avx512Bf16> {
  using Acc = F32<Avx512>;
  using A = __m512bh;
  using B = __m512bh;
  SPRUN_INLINE static A split(I32<Avx512> pair) { return reinterpret_cast<__m512bh>(pair.v); }
  SPRUN_INLINE static A broadcast(int32_t pair) {
    return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
  }
  SPRUN_INLINE static B load(const uint16_t* p) {
    return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p));
  }
  SPRUN_INLINE static Acc add(Acc acc, A a, B b) { return {_mm512_dpbf16_ps(acc.v, a, b)}; }
  SPRUN_INLINE static void accumulate(Acc& acc, A a, B b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(acc.v) : "v"(a), "v"(b));
  }
};
template <>
struct Dot2<Avx512Vbmi2Bf16> : Dot2<Avx512Bf16> {};
#endif

}  // namespace sprun::kernels::simd
