// Floats to u8 codes, the one place where all kernels do it.
//
//   code = saturate_u8(round_half_even(x / scale) + zero_point), NaN gives 0
//
// ToU8<Arch> gives the codes of one vector as int32 whose u8 saturation is the code, or of four vectors as bytes.
#pragma once

#include "kernels/simd/interleave.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::simd {

template <class A>
class ToU8 {
 public:
  using V = F32<A>;
  using I = I32<A>;

  SPRUN_INLINE ToU8(float scale, int32_t zero_point)
      : scale_(V::broadcast(scale)),
        low_(V::broadcast(static_cast<float>(-zero_point))),
        high_(V::broadcast(static_cast<float>(255 - zero_point))),
        inverse_(V::broadcast(1.0F / scale)),
        too_high_(V::broadcast(static_cast<float>(256 - zero_point) * scale)),
        zero_(I::broadcast(zero_point)),
        zero16_(I::broadcast(zero_point * 0x10001)),
        by_inverse_(V::kFusedMultiplyAdd && scale >= 0x1p-90F && scale <= 0x1p90F) {}

  // A correctly rounded quotient: x times 1 / scale rounds differently for some inputs. Clamped to what
  // the codes can hold before it is rounded. NaN passes (it is the second operand), becomes
  // INT32_MIN, and is stored as 0.
  SPRUN_INLINE I operator()(V x) const {
    return I::from_f32(V::min(high_, V::max(low_, x / scale_))) + zero_;
  }

  // Of four vectors, as Interleave::u8_of_s16() leaves them: four codes of each in a 128-bit lane. Each step is done for all
  // four, which keeps more of them in flight, and the zero point is added to 16-bit numbers (saturating: no codes are
  // lost).
  SPRUN_INLINE typename Interleave<A>::Raw bytes(const V (&x)[4]) const {
    V q[4];
    if (by_inverse_) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) q[i] = quotient(V::min(too_high_, x[i]));
      return packed(q);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) q[i] = x[i] / scale_;
    return rounded(q);
  }

  // bytes() of x times scale.
  SPRUN_INLINE typename Interleave<A>::Raw rounded(const V (&x)[4]) const {
    V q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) q[i] = V::min(high_, x[i]);
    return packed(q);
  }

 private:
  // x / scale, correctly rounded, by one product and two fused multiply-adds: several times the throughput of a
  // division. The remainder r = x - q0 scale is exact, and q0 + r / scale is so near that its rounding is that of the
  // quotient (P. Markstein, IBM J. Res. Dev. 34, 1990; N. Brisebarre, J.-M. Muller, S. K. Raina, IEEE Trans. Comput.
  // 53, 2004: known divisor), unless something underflows, which at these scales takes an x whose code is that of 0.
  // -inf gives NaN, which has its code.
  SPRUN_INLINE V quotient(V x) const {
    const V q0 = x * inverse_;
    return V::fma(V::fma(V::zero() - q0, scale_, x), inverse_, q0);
  }

  // Of quotients that are at most about 256 - zero_point or NaN. What is below int32 becomes INT32_MIN.
  SPRUN_INLINE typename Interleave<A>::Raw packed(const V (&q)[4]) const {
    using S = Interleave<A>;
    I code[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) code[i] = I::from_f32(q[i]);
    return S::u8_of_s16(S::add16_sat(S::s16_of_s32(code[0].v, code[1].v), zero16_.v),
                        S::add16_sat(S::s16_of_s32(code[2].v, code[3].v), zero16_.v));
  }

  V scale_, low_, high_, inverse_, too_high_;
  I zero_, zero16_;
  bool by_inverse_;
};

}  // namespace sprun::kernels::simd
