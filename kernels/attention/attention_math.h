// Small pieces that the attention kernels share: exp of scores, soft capping, scalar exp.
#pragma once

#include <type_traits>

#include "kernels/simd/math.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::attn {

using simd::F32;
using simd::I32;

inline constexpr float kNegInf = -__builtin_inff();
inline constexpr float kLowest = -3.402823466e+38F;  // lowest finite float

// e^x for x <= 0 or NaN, 2 ulp near 0; exactly 0 from about -88 (AVX2, SSE2) or -111 (AVX-512) down. Softmax needs no
// more, so this is shorter than simd::exp: base 2, one step of reduction. The coefficients of 2^f on [-1/2, 1/2] are
// our own weighted least squares fit (relative error 9e-8).
template <class A>
SPRUN_INLINE F32<A> exp_score(F32<A> x) {
  using V = F32<A>;
  constexpr float kC[] = {1.0F, 0.6931470036506653F, 0.24022242426872253F, 0.05550733581185341F,
                          0.009671512991189957F, 0.001326472731307149F};
  constexpr bool kScales = std::is_same_v<A, simd::Avx512> ;
  V t = x * V::broadcast(1.44269504088896341F);
  t = V::max(V::broadcast(kScales ? -160.0F : -127.0F), t);
  const V n = V::round_even(t);
  const V p = simd::polynomial(t - n, kC);
  if constexpr (kScales) {
    return V::scale_pow2(p, n);
  } else {  // n >= -127, and -127 makes a zero exponent field and with it +0
    using I = I32<A>;
    return p * (I::from_f32(n) + I::broadcast(127)).template shl<23>().as_f32();
  }
}

// What scores are lowered by: their maximum, but 0 for a row without any score, so that -inf - m stays -inf.
template <class A>
SPRUN_INLINE F32<A> safe_max(F32<A> m) {
  using V = F32<A>;
  return V::select(m == V::broadcast(kNegInf), V::zero(), m);
}

template <class A>
SPRUN_INLINE F32<A> soft_cap(F32<A> s, float cap) {
  using V = F32<A>;
  return V::broadcast(cap) * simd::tanh(s * V::broadcast(1.0F / cap));
}

}  // namespace sprun::kernels::attn
