// Zeros of a row of gate values and hidden values of listed neurons, instantiated per Arch by
// sparse_ffn_<weights>_<isa>.cc; and what the products of all weight types share.
#pragma once

#include <type_traits>

#include "kernels/simd/interleave.h"
#include "kernels/simd/math.h"
#include "kernels/sparse_ffn/sparse_ffn_types.h"

namespace sprun::kernels::sparse_ffn {

// Neurons ahead of the ones being multiplied whose up rows are fetched, and neurons whose down rows
// are taken together while the next ones are fetched. Line by line over several rows at once: one
// row after the other is slower. Measured on Zen 5, one core that streams 36 GB/s, 8 % of 13,824
// rows of 1,280 and 2,304 bytes on 2 MiB pages: 21 GB/s, on 4 KiB pages 16 GB/s, without fetching
// 12 GB/s; 16 or 32 rows at a time give 18 GB/s for down, hints for L1, L2 or no level at all the
// same.
inline constexpr int64_t kUpAhead = 8;
inline constexpr int64_t kDownRows = 8;
// With several tokens arithmetic counts too, and sums are loaded and stored less often.
inline constexpr int64_t kDownRowsMany = 16;
static_assert(kUpAhead <= kFfnAhead && kDownRowsMany <= kFfnAhead && kFfnUnit % kDownRowsMany == 0);

SPRUN_INLINE void fetch(const char* p) { __builtin_prefetch(p); }
// Into a second-level cache: more may be under way than a first-level cache has room for.
SPRUN_INLINE void fetch_far(const char* p) { __builtin_prefetch(p, 0, 2); }

// Row pointers of the group of four at list place i, and of the rows to fetch meanwhile. Places
// past the end repeat the last row; nothing left to fetch repeats a row that is being read.
struct GroupRows {
  const char* row[kFfnGroup];
  const char* next[kFfnGroup];

  SPRUN_INLINE GroupRows(const FfnDotArgs& a, int64_t i) {
#pragma GCC unroll 4
    for (int64_t r = 0; r < kFfnGroup; ++r) {
      const int64_t at = i + r < a.count ? i + r : a.count - 1;
      const int64_t ahead = i + r + kUpAhead;
      row[r] = a.rows + a.ids[at] * a.stride_bytes;
      next[r] = a.rows + a.ids[ahead < a.listed ? ahead : at] * a.stride_bytes;
    }
  }
};

// The same for `count` rows from list place `begin` on, which are taken together; those to fetch
// are `step` places on.
struct DownRows {
  const char* row[kDownRowsMany];
  const char* next[kDownRowsMany];

  SPRUN_INLINE DownRows(const FfnDownArgs& a, int64_t begin, int64_t count, int64_t step) {
    for (int64_t r = 0; r < count; ++r) {
      const int64_t ahead = begin + r + step;
      row[r] = a.rows + a.ids[begin + r] * a.stride_bytes;
      next[r] = a.rows + a.ids[ahead < a.listed ? ahead : begin + r] * a.stride_bytes;
    }
  }
};

template <class Arch>
struct Rows {
  using V = simd::F32<simd::VecArch<Arch>>;
  using I = simd::I32<simd::VecArch<Arch>>;
  static constexpr int64_t kL = V::kLanes;

  SPRUN_INLINE static V activate(FfnActivation activation, V v) {
    switch (activation) {
      case FfnActivation::kIdentity:
        return v;
      case FfnActivation::kGeluTanh:
        return simd::gelu_tanh(v);
      case FfnActivation::kGeluErf:
        return simd::gelu_erf(v);
      case FfnActivation::kSilu:
        return simd::silu(v);
      case FfnActivation::kRelu:
        return simd::relu(v);
      case FfnActivation::kReluSquared: {
        const V r = simd::relu(v);
        return r * r;
      }
    }
    return v;
  }

  // s = fn(g, threshold) over the row; returns how many are not 0.
  template <class Fn>
  SPRUN_INLINE static int64_t sweep(const FfnSparsifyArgs& a, Fn fn) {
    const V one = V::broadcast(1.0F);
    const V common = V::broadcast(a.rule->threshold);
    V zeros = V::zero();
    int64_t i = 0;
    for (; i + kL <= a.n; i += kL) {
      const V t = a.thresholds == nullptr ? common : V::load(a.thresholds + i);
      const V s = fn(V::load(a.g + i), t);
      zeros = zeros + V::select(s == V::zero(), one, V::zero());
      s.store(a.g + i);
    }
    int64_t zero_count = static_cast<int64_t>(zeros.reduce_add());
    if (i < a.n) {
      const int64_t rest = a.n - i;
      const V t = a.thresholds == nullptr ? common : V::load_partial(a.thresholds + i, rest);
      fn(V::load_partial(a.g + i, rest), t).store_partial(a.g + i, rest);
      for (; i < a.n; ++i) zero_count += a.g[i] == 0.0F ? 1 : 0;
    }
    return a.n - zero_count;
  }

  static int64_t sparsify(const FfnSparsifyArgs& a) {
    const SparseFfnRule& rule = *a.rule;
    const V zero = V::zero();
    switch (rule.sparsifier) {
      case FfnSparsifier::kRelu:
        return sweep(
            a, [=](V g, V) __attribute__((always_inline)) { return V::max(g, zero); });
      case FfnSparsifier::kStatTopK: {
        const V theta = V::broadcast(a.theta);
        return sweep(
            a, [=](V g, V) __attribute__((always_inline)) { return V::max(g - theta, zero); });
      }
      case FfnSparsifier::kGateThreshold:
        return sweep(
            a, [&](V g, V t) __attribute__((always_inline)) {
              return rule.strict ? V::select(g > t, g, zero) : V::select(g >= t, g, zero);
            });
      case FfnSparsifier::kActThreshold:
        return sweep(
            a, [&](V g, V t) __attribute__((always_inline)) {
              const V s = activate(rule.activation, g);
              const V size = V::abs(s);
              return rule.strict ? V::select(size > t, s, zero) : V::select(size >= t, s, zero);
            });
      case FfnSparsifier::kTopK:
      case FfnSparsifier::kTopKAbs:
        return sweep(
            a, [=](V g, V) __attribute__((always_inline)) { return V::select(g == g, g, zero); });
    }
    return 0;
  }

  // Per-neuron values of a unit, side by side; places past the list are 0, to a whole register.
  template <class T, class Get>
  SPRUN_INLINE static void gather(const FfnHiddenArgs& a, T (&out)[kFfnUnit], Get get) {
    for (int64_t i = 0; i < a.count; ++i) out[i] = get(a.ids[i]);
    for (int64_t i = a.count; i % kL != 0; ++i) out[i] = T{0};
  }

  struct Neurons {
    alignas(64) float bias[kFfnUnit];
    alignas(64) float scale[kFfnUnit];
    alignas(64) int32_t sum[kFfnUnit];
    alignas(64) int32_t zero[kFfnUnit];
  };

  template <class Sum>
  SPRUN_INLINE static V up_value(const FfnHiddenArgs& a, const Neurons& n, int64_t t, int64_t i) {
    const Sum* sums = static_cast<const Sum*>(a.sums) + t * a.ld_sums + i;
    const V bias = V::load(n.bias + i);
    if constexpr (std::is_same_v<Sum, float>) {
      return V::load(sums) + bias;
    } else {
      const int32_t zero = a.x_zero[t];
      I exact = I::load(sums) - I::broadcast(zero) * I::load(n.sum + i);
      if (a.w_zero != nullptr) {
        const int32_t centred = a.x_sum[t] - static_cast<int32_t>(a.k) * zero;
        exact = exact - I::load(n.zero + i) * I::broadcast(centred);
      }
      return V::fma(exact.to_f32(), V::broadcast(a.x_scale[t]) * V::load(n.scale + i), bias);
    }
  }

  template <class Sum>
  static void hidden(const FfnHiddenArgs& a) {
    constexpr bool kInt8 = !std::is_same_v<Sum, float>;
    const SparseFfnRule& rule = *a.rule;
    const bool done = rule.sparsifier == FfnSparsifier::kActThreshold;
    const FfnActivation activation = done ? FfnActivation::kIdentity : rule.activation;
    Neurons n;
    if (a.gated) {
      gather(a, n.bias, [&](int64_t j) { return a.bias == nullptr ? 0.0F : a.bias[j]; });
      if constexpr (kInt8) {
        gather(a, n.scale, [&](int64_t j) { return a.quant[j].scale; });
        gather(a, n.sum, [&](int64_t j) { return a.quant[j].sum; });
        if (a.w_zero != nullptr) gather(a, n.zero, [&](int64_t j) { return a.w_zero[j]; });
      }
    }
    for (int64_t t = 0; t < a.tokens; ++t) {
      alignas(64) float s_of[kFfnUnit];
      const float* listed = a.s + t * a.ld_s;
      if (!a.s_listed) {
        gather(a, s_of, [listed](int64_t j) { return listed[j]; });
        listed = s_of;
      }
      V low = V::broadcast(a.min[t]);
      V high = V::broadcast(a.max[t]);
      for (int64_t i = 0; i < a.count; i += kL) {
        const int64_t lanes = a.count - i < kL ? a.count - i : kL;
        const V s = lanes == kL ? V::load(listed + i) : V::load_partial(listed + i, lanes);
        V h = activate(activation, s);
        if (a.gated) h = h * activate(rule.up_activation, up_value<Sum>(a, n, t, i));
        h = V::select(s == V::zero(), V::zero(), h);
        low = V::min(h, low);
        high = V::max(h, high);
        float* out = a.h + t * a.ld_h + i;
        if (lanes == kL) {
          h.store(out);
        } else {
          h.store_partial(out, lanes);
        }
      }
      a.min[t] = low.reduce_min();
      a.max[t] = high.reduce_max();
    }
  }

  SPRUN_INLINE static V out_value(const FfnOutArgs& a, int64_t i, int64_t lanes) {
    const auto load = [=](const float* p) __attribute__((always_inline)) {
      return lanes == kL ? V::load(p + i) : V::load_partial(p + i, lanes);
    };
    V v = a.bias == nullptr ? V::zero() : load(a.bias);
    if (a.w_scale == nullptr) {
      v = load(static_cast<const float*>(a.sum)) + v;
    } else {
      const int32_t* sums = static_cast<const int32_t*>(a.sum) + i;
      const I sum = lanes == kL ? I::load(sums) : I::load_partial(sums, lanes);
      v = V::fma(sum.to_f32(), V::broadcast(a.scale) * load(a.w_scale), v);
    }
    return a.residual == nullptr ? v : v + load(a.residual);
  }

  static void out(const FfnOutArgs& a) {
    int64_t i = 0;
    for (; i + kL <= a.n; i += kL) out_value(a, i, kL).store(a.y + i);
    if (i < a.n) out_value(a, i, a.n - i).store_partial(a.y + i, a.n - i);
  }
};

}  // namespace sprun::kernels::sparse_ffn
