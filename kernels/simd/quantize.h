// Floats to u8 codes, the one place where all kernels do it.
//
//   code = saturate_u8(round_half_even(x / scale) + zero_point), NaN gives 0
//
// ToU8<Arch> keeps the codes as int32 whose u8 saturation is the code.
#pragma once

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
        zero_(I::broadcast(zero_point)) {}

  // A true division: multiplying by 1 / scale rounds differently for some inputs. Clamped to what
  // the codes can hold before it is rounded. NaN passes (it is the second operand), becomes
  // INT32_MIN, and is stored as 0.
  SPRUN_INLINE I operator()(V x) const {
    return I::from_f32(V::min(high_, V::max(low_, x / scale_))) + zero_;
  }

 private:
  V scale_, low_, high_;
  I zero_;
};

}  // namespace sprun::kernels::simd
