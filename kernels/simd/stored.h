// How weights that are stored as f32, f16, bf16 or s8 become a vector of f32: template parameters of kernels that widen
// weights in registers.
#pragma once

#include "kernels/simd/vec.h"

namespace sprun::kernels::simd {

struct StoredF32 {
  using Element = float;
  template <class Arch>
  SPRUN_INLINE static F32<Arch> load(const Element* w) {
    return F32<Arch>::load(w);
  }
};
struct StoredF16 {
  using Element = uint16_t;
  template <class Arch>
  SPRUN_INLINE static F32<Arch> load(const Element* w) {
    return F32<Arch>::load_f16(w);
  }
};
struct StoredBf16 {
  using Element = uint16_t;
  template <class Arch>
  SPRUN_INLINE static F32<Arch> load(const Element* w) {
    return F32<Arch>::load_bf16(w);
  }
};
struct StoredS8 {
  using Element = int8_t;
  template <class Arch>
  SPRUN_INLINE static F32<Arch> load(const Element* w) {
    return I32<Arch>::load_s8(w).to_f32();
  }
};

}  // namespace sprun::kernels::simd
