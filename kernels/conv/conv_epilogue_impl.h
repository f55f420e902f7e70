// Last step of every convolution kernel: y = scale * act(sum + bias + residual) + shift.
#pragma once

#include "kernels/conv/conv_types.h"
#include "kernels/simd/math.h"

namespace sprun::kernels::conv {

// Where finished sums go: `rows` output channels, `cols` neighbouring output positions.
struct OutTile {
  const float* sums;  // [rows, ld_sums]
  int64_t ld_sums;
  const float* bias;      // [rows]; may be null
  const float* residual;  // [rows, ld]; may be null
  float* y;               // [rows, ld]
  int64_t ld;
  int64_t rows, cols;
};

template <class V>
struct Act {
  V alpha, beta;

  SPRUN_INLINE explicit Act(const ConvEpilogue& e)
      : alpha(V::broadcast(e.alpha)), beta(V::broadcast(e.beta)) {}
  SPRUN_INLINE V hard_sigmoid(V v) const {
    return V::min(V::max(V::fma(alpha, v, beta), V::zero()), V::broadcast(1.0F));
  }
};

#define SPRUN_CONV_ACT(Name, expression)                          \
  template <class V>                                              \
  struct Name : Act<V> {                                          \
    using Act<V>::Act;                                            \
    SPRUN_INLINE V operator()(V v) const { return (expression); } \
  };
SPRUN_CONV_ACT(ActNone, v)
SPRUN_CONV_ACT(ActRelu, V::max(V::zero(), v))
SPRUN_CONV_ACT(ActClip, V::min(this->beta, V::max(this->alpha, v)))
SPRUN_CONV_ACT(ActLeakyRelu, V::select(v < V::zero(), this->alpha* v, v))
SPRUN_CONV_ACT(ActHardSigmoid, this->hard_sigmoid(v))
SPRUN_CONV_ACT(ActHardSwish, v* this->hard_sigmoid(v))
SPRUN_CONV_ACT(ActSigmoid, simd::sigmoid(v))
SPRUN_CONV_ACT(ActSilu, simd::silu(v))
SPRUN_CONV_ACT(ActTanh, simd::tanh(v))
SPRUN_CONV_ACT(ActGelu, simd::gelu_erf(v))
#undef SPRUN_CONV_ACT

template <class V, class Activation>
SPRUN_INLINE void write_tile(const OutTile& out, const ConvEpilogue& e, Activation act) {
  const V scale = V::broadcast(e.scale);
  const V shift = V::broadcast(e.shift);
  for (int64_t r = 0; r < out.rows; ++r) {
    const float* sums = out.sums + r * out.ld_sums;
    const float* residual = out.residual == nullptr ? nullptr : out.residual + r * out.ld;
    float* y = out.y + r * out.ld;
    const V bias = V::broadcast(out.bias == nullptr ? 0.0F : out.bias[r]);
    int64_t c = 0;
    for (; c + V::kLanes <= out.cols; c += V::kLanes) {
      V v = V::load(sums + c) + bias;
      if (residual != nullptr) v = v + V::load(residual + c);
      V::fma(act(v), scale, shift).store(y + c);
    }
    if (c < out.cols) {
      const int64_t n = out.cols - c;
      V v = V::load_partial(sums + c, n) + bias;
      if (residual != nullptr) v = v + V::load_partial(residual + c, n);
      V::fma(act(v), scale, shift).store_partial(y + c, n);
    }
  }
}

template <class Arch>
[[gnu::noinline]] void finish(const OutTile& out, const ConvEpilogue& e) {
  using V = simd::F32<simd::VecArch<Arch>>;
  switch (e.activation) {
    case ConvActivation::kNone:
      return write_tile<V>(out, e, ActNone<V>(e));
    case ConvActivation::kRelu:
      return write_tile<V>(out, e, ActRelu<V>(e));
    case ConvActivation::kClip:
      return write_tile<V>(out, e, ActClip<V>(e));
    case ConvActivation::kLeakyRelu:
      return write_tile<V>(out, e, ActLeakyRelu<V>(e));
    case ConvActivation::kHardSigmoid:
      return write_tile<V>(out, e, ActHardSigmoid<V>(e));
    case ConvActivation::kHardSwish:
      return write_tile<V>(out, e, ActHardSwish<V>(e));
    case ConvActivation::kSigmoid:
      return write_tile<V>(out, e, ActSigmoid<V>(e));
    case ConvActivation::kSilu:
      return write_tile<V>(out, e, ActSilu<V>(e));
    case ConvActivation::kTanh:
      return write_tile<V>(out, e, ActTanh<V>(e));
    case ConvActivation::kGelu:
      return write_tile<V>(out, e, ActGelu<V>(e));
  }
}

}  // namespace sprun::kernels::conv
