// Last step of every float-valued GEMM: act(v) + residual, written to Y.
#pragma once

#include "kernels/gemm/gemm_types.h"
#include "kernels/simd/math.h"

namespace sprun::kernels::gemm {

template <class V>
struct Identity {
  SPRUN_INLINE V operator()(V v) const { return v; }
};

#define SPRUN_ACTIVATION(Type, call)                                      \
  template <class V>                                                      \
  struct Type {                                                           \
    SPRUN_INLINE V operator()(V v) const { return simd::call(v); }        \
  };
SPRUN_ACTIVATION(Relu, relu)
SPRUN_ACTIVATION(GeluTanh, gelu_tanh)
SPRUN_ACTIVATION(QuickGelu, quick_gelu)
SPRUN_ACTIVATION(Silu, silu)
SPRUN_ACTIVATION(Tanh, tanh)
SPRUN_ACTIVATION(Sigmoid, sigmoid)
#undef SPRUN_ACTIVATION

template <class V>
struct GeluErf {
  SPRUN_INLINE V operator()(V v) const { return simd::gelu_erf(v); }
  template <int kN>
  SPRUN_INLINE void all(V (&v)[kN]) const {
    simd::gelu_erf_all(v);
  }
};

template <class V>
struct GeluErfCodes {
  SPRUN_INLINE V operator()(V v) const {
    V one[1] = {v};
    simd::gelu_erf_codes_all(one);
    return one[0];
  }
  template <int kN>
  SPRUN_INLINE void all(V (&v)[kN]) const {
    simd::gelu_erf_codes_all(v);
  }
};

// act(v) of several vectors: together where the activation has a way to do that.
template <class Act, class V, int kN>
SPRUN_INLINE void activate(Act act, V (&v)[kN]) {
  if constexpr (requires { act.all(v); }) {
    act.all(v);
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < kN; ++i) v[i] = act(v[i]);
  }
}

// Where one tile of Y goes.
struct OutTile {
  float* y;
  int64_t ldy;
  const float* residual;  // may be null
  int64_t ld_residual;
  int64_t rows, cols;  // cols <= nr
};

// y[r, c] = act(value(r, c)) + residual[r, c]; value(r, c, n) returns lanes c.. of row r, of which
// the first n count.
template <class V, int64_t kNr, class Value, class Act>
SPRUN_INLINE void write_tile(const OutTile& out, Value value, Act act) {
  for (int64_t r = 0; r < out.rows; ++r) {
    float* y = out.y + r * out.ldy;
    const float* residual = out.residual == nullptr ? nullptr : out.residual + r * out.ld_residual;
    int64_t c = 0;
    if (out.cols == kNr) {
      constexpr int kVecs = kNr / V::kLanes % 4 == 0 ? 4 : kNr / V::kLanes % 2 == 0 ? 2 : 1;
      for (; c < kNr; c += kVecs * V::kLanes) {
        V v[kVecs];
#pragma GCC unroll 4
        for (int i = 0; i < kVecs; ++i) v[i] = value(r, c + i * V::kLanes, V::kLanes);
        activate(act, v);
#pragma GCC unroll 4
        for (int i = 0; i < kVecs; ++i) {
          if (residual != nullptr) v[i] = v[i] + V::load(residual + c + i * V::kLanes);
          v[i].store(y + c + i * V::kLanes);
        }
      }
      continue;
    }
    for (; c + V::kLanes <= out.cols; c += V::kLanes) {
      V v = act(value(r, c, V::kLanes));
      if (residual != nullptr) v = v + V::load(residual + c);
      v.store(y + c);
    }
    if (c < out.cols) {
      const int64_t n = out.cols - c;
      V v = act(value(r, c, n));
      if (residual != nullptr) v = v + V::load_partial(residual + c, n);
      v.store_partial(y + c, n);
    }
  }
}

template <class V, int64_t kNr, class Value>
SPRUN_INLINE void write_tile(const OutTile& out, Activation activation, Value value) {
  switch (activation) {
    case Activation::kNone: return write_tile<V, kNr>(out, value, Identity<V>());
    case Activation::kRelu: return write_tile<V, kNr>(out, value, Relu<V>());
    case Activation::kGeluErf: return write_tile<V, kNr>(out, value, GeluErf<V>());
    case Activation::kGeluErfCodes: return write_tile<V, kNr>(out, value, GeluErfCodes<V>());
    case Activation::kGeluTanh: return write_tile<V, kNr>(out, value, GeluTanh<V>());
    case Activation::kQuickGelu: return write_tile<V, kNr>(out, value, QuickGelu<V>());
    case Activation::kSilu: return write_tile<V, kNr>(out, value, Silu<V>());
    case Activation::kTanh: return write_tile<V, kNr>(out, value, Tanh<V>());
    case Activation::kSigmoid: return write_tile<V, kNr>(out, value, Sigmoid<V>());
  }
}

// The common end of a tile, straight from registers: a full panel and no activation.
struct DirectOut {
  float* y = nullptr;  // null: not this way
  int64_t ldy = 0;
  const float* bias = nullptr;  // [nr], may be null
  const float* residual = nullptr;
  int64_t ld_residual = 0;

  // Output of rows m.. and panel n0..; y stays null when the tile needs write_tile().
  DirectOut() = default;
  SPRUN_INLINE DirectOut(const Epilogue& e, float* out, int64_t ld, int64_t m, int64_t n0,
                         bool full_panel) {
    if (!full_panel || e.activation != Activation::kNone) return;
    y = out + m * ld + n0;
    ldy = ld;
    if (e.bias != nullptr) bias = e.bias + n0;
    if (e.residual != nullptr) residual = e.residual + m * e.ld_residual + n0;
    ld_residual = e.ld_residual;
  }

  // y[r, c..] = sum * scale + bias + residual
  template <class V>
  SPRUN_INLINE void write(int64_t r, int64_t c, V sum, V scale) const {
    V v = bias == nullptr ? sum * scale : V::fma(sum, scale, V::load(bias + c));
    if (residual != nullptr) v = v + V::load(residual + r * ld_residual + c);
    v.store(y + r * ldy + c);
  }
};

// Epilogue of the f32 and bf16 families: v = alpha * sum + bias.
template <class Arch, int64_t kNr>
[[gnu::noinline]] void finish_f32(const Epilogue& e, float* y, int64_t ldy, int64_t m, int64_t rows,
                                  int64_t n0, int64_t cols, const float* acc) {
  using V = simd::F32<simd::VecArch<Arch>>;
  OutTile out{y + m * ldy + n0, ldy, nullptr, e.ld_residual, rows, cols};
  if (e.residual != nullptr) out.residual = e.residual + m * e.ld_residual + n0;
  const V alpha = V::broadcast(e.alpha);
  const float* bias = e.bias == nullptr ? nullptr : e.bias + n0;
  write_tile<V, kNr>(out, e.activation,
                [=](int64_t r, int64_t c, int64_t n) __attribute__((always_inline)) {
                  const V sum = V::load(acc + r * kNr + c);
                  if (bias == nullptr) return alpha * sum;
                  const V b = n == V::kLanes ? V::load(bias + c) : V::load_partial(bias + c, n);
                  return V::fma(alpha, sum, b);
                });
}

}  // namespace sprun::kernels::gemm
