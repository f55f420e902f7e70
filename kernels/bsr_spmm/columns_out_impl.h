// Y as columns (BsrColumns): the sums of a unit lie that way already, so that an output is scaled,
// activated, measured and stored as it is.
#pragma once

#include "kernels/bsr_spmm/token_lanes_impl.h"
#include "kernels/gemm/epilogue_impl.h"
#include "kernels/simd/dot4.h"
#include "kernels/simd/interleave.h"
#include "kernels/simd/quantize.h"

namespace sprun::kernels::bsr {

// Four vectors of an output, of tokens h, 16 + h, 32 + h and 48 + h on, are one vector of codes.
template <class VecArch>
SPRUN_INLINE void store_codes(const simd::ToU8<VecArch>& to_u8, const simd::F32<VecArch> (&v)[4], uint8_t* out) {
  simd::Interleave<VecArch>::store(out, to_u8.bytes(v));
}

// Tokens from 16 kVectors on become 0 or codes of 0.
template <class Arch, int kVectors>
void quantize_vectors(const float* x, int64_t inputs, float scale, int32_t zero_point, uint8_t* out) {
  using V = simd::F32<simd::VecArch<Arch>>;
  const simd::ToU8<simd::VecArch<Arch>> to_u8(scale, zero_point);
  for (int64_t i = 0; i < inputs; ++i, x += 64, out += 64) {
#pragma GCC unroll 4
    for (int h = 0; h < 16; h += V::kLanes) {
      V v[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) v[j] = j < kVectors ? V::load(x + 16 * j + h) : V::zero();
      store_codes(to_u8, v, out + 4 * h);
    }
  }
}

template <class Arch>
void quantize_columns(const float* x, int64_t inputs, int64_t tokens, float scale, int32_t zero_point, uint8_t* out) {
  if (tokens <= 16) return quantize_vectors<Arch, 1>(x, inputs, scale, zero_point, out);
  if (tokens <= 32) return quantize_vectors<Arch, 2>(x, inputs, scale, zero_point, out);
  if (tokens <= 48) return quantize_vectors<Arch, 3>(x, inputs, scale, zero_point, out);
  quantize_vectors<Arch, 4>(x, inputs, scale, zero_point, out);
}

// Lanes: TokenLanes of a u8 x s8 pattern with slabs of 64 tokens.
template <class Lanes>
struct ColumnsOut {
  using VecArch = simd::VecArch<typename Lanes::Arch>;
  using V = simd::F32<VecArch>;
  using I = typename simd::Dot4<typename Lanes::Arch>::Acc;
  static_assert(Lanes::kSlab == 64);

  // Where the outputs of one unit go.
  struct Unit {
    const GemmU8S8Args& gemm;
    const BsrColumns& y;
    int64_t first, n0, cols, tokens;  // element of output n0 in y, outputs, valid tokens
  };

  // What makes values of sums. A copy: results may be anything in memory, also what a Unit points to.
  struct Values {
    float x_scale;
    const float* w_scale;
    int64_t w_scale_stride;
    const float* bias;
    const int32_t* sums;

    SPRUN_INLINE Values(const Unit& u, const int32_t* s)
        : x_scale(*u.gemm.x_scale),
          w_scale(u.gemm.w_scale + u.n0 * u.gemm.w_scale_stride),
          w_scale_stride(u.gemm.w_scale_stride),
          bias(u.gemm.epilogue.bias == nullptr ? nullptr : u.gemm.epilogue.bias + u.n0),
          sums(s) {}

    // Of tokens 16 j + h .. of output n0 + c, for j < kVectors.
    template <int kVectors, class Act>
    SPRUN_INLINE void get(int64_t c, int h, Act act, V (&v)[kVectors]) const {
      const V scale = V::broadcast(x_scale) * V::broadcast(w_scale[c * w_scale_stride]);
      const V add = V::broadcast(bias == nullptr ? 0.0F : bias[c]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) v[j] = V::fma(I::load(sums + c * 64 + 16 * j + h).to_f32(), scale, add);
      gemm::activate(act, v);
    }
  };

  // The first kVectors * 16 tokens, all of which count. What is not a number leaves the range as it is.
  template <int kVectors, class Act>
  static void store_floats(const Unit& u, const int32_t* sums, Act act) {
    const Values values(u, sums);
    V low = V::broadcast(u.y.range[0]), high = V::broadcast(u.y.range[1]);
    float* out = u.y.floats + u.first;
    for (int64_t c = 0; c < u.cols; ++c, out += 64) {
#pragma GCC unroll 4
      for (int h = 0; h < 16; h += V::kLanes) {
        V v[kVectors];
        values.get(c, h, act, v);
#pragma GCC unroll 4
        for (int j = 0; j < kVectors; ++j) {
          v[j].store(out + 16 * j + h);
          low = V::min(v[j], low);
          high = V::max(v[j], high);
        }
      }
    }
    u.y.range[0] = low.reduce_min();
    u.y.range[1] = high.reduce_max();
  }

  // Tokens from `first` on, a multiple of 16: one of them at least does not count.
  template <class Act>
  static void store_last_floats(const Unit& u, const int32_t* sums, int64_t first, Act act) {
    const Values values(u, sums);
    V low = V::broadcast(u.y.range[0]), high = V::broadcast(u.y.range[1]);
    float* out = u.y.floats + u.first;
    for (int64_t c = 0; c < u.cols; ++c, out += 64) {
      for (int64_t t = first; t < u.tokens; t += V::kLanes) {
        V v[1];
        values.get(c, static_cast<int>(t), act, v);
        v[0].store(out + t);
        const V counted = u.tokens - t >= V::kLanes ? v[0] : V::load_partial(out + t, u.tokens - t);  // then zeros
        low = V::min(counted, low);
        high = V::max(counted, high);
      }
    }
    u.y.range[0] = low.reduce_min();
    u.y.range[1] = high.reduce_max();
  }

  template <class Act>
  static void finish(const Unit& u, const int32_t* sums, Act act) {
    if (u.y.codes != nullptr) return finish_codes(u, sums, act);
    const int64_t whole = u.tokens / 16;
    if (whole == 1) store_floats<1>(u, sums, act);
    if (whole == 2) store_floats<2>(u, sums, act);
    if (whole == 3) store_floats<3>(u, sums, act);
    if (whole == 4) store_floats<4>(u, sums, act);
    if (u.tokens % 16 != 0) store_last_floats(u, sums, whole * 16, act);
  }

  template <class Act>
  static void finish_codes(const Unit& u, const int32_t* sums, Act act) {
    const Values values(u, sums);
    const simd::ToU8<VecArch> to_u8(u.y.scale, u.y.zero_point);
    uint8_t* out = u.y.codes + u.first;
    for (int64_t c = 0, cols = u.cols; c < cols; ++c, out += 64) {
#pragma GCC unroll 4
      for (int h = 0; h < 16; h += V::kLanes) {
        V v[4];
        values.get(c, h, act, v);
        store_codes(to_u8, v, out + 4 * h);
      }
    }
  }

  [[gnu::noinline]] static void finish(const Unit& u, const int32_t* sums) {
    switch (u.gemm.epilogue.activation) {
      case Activation::kNone: return finish(u, sums, gemm::Identity<V>());
      case Activation::kRelu: return finish(u, sums, gemm::Relu<V>());
      case Activation::kGeluErf: return finish(u, sums, gemm::GeluErf<V>());
      case Activation::kGeluErfCodes: return finish(u, sums, gemm::GeluErfCodes<V>());
      case Activation::kGeluTanh: return finish(u, sums, gemm::GeluTanh<V>());
      case Activation::kQuickGelu: return finish(u, sums, gemm::QuickGelu<V>());
      case Activation::kSilu: return finish(u, sums, gemm::Silu<V>());
      case Activation::kTanh: return finish(u, sums, gemm::Tanh<V>());
      case Activation::kSigmoid: return finish(u, sums, gemm::Sigmoid<V>());
    }
  }

  static void run(const BsrU8S8Args& args, const BsrColumns& y, const BsrRange& range, void* scratch) {
    int32_t* sums = static_cast<int32_t*>(scratch);
    int32_t* start = sums + Lanes::kUnit * 64;
    const GemmU8S8Args& g = args.gemm;
    __builtin_memset(sums, 0, Lanes::kUnit * 64 * 4);  // tokens past M that no run reaches
    for_each_unit(Lanes::kLayout, range, g.m, [&](int64_t slab, int64_t u, int64_t tokens) {
      Lanes::multiply(args, slab, u, tokens, start, sums, [] {});
      const int64_t n0 = u * Lanes::kUnit;
      finish({g, y, (slab * g.n + n0) * 64, n0, min_of(Lanes::kUnit, g.n - n0), tokens}, sums);
    });
  }
};

}  // namespace sprun::kernels::bsr
