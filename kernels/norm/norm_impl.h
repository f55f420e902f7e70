// Row normalisation bodies, instantiated per Arch by norm_<isa>.cc. A row is read three times, from
// L1 after the first.
#pragma once

#include "kernels/norm/norm_types.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::norm {

template <class Arch>
struct RowNorm {
  using V = simd::F32<simd::VecArch<Arch>>;
  static constexpr int64_t kL = V::kLanes;

  SPRUN_INLINE static V load(const float* p, int64_t n) {
    return n == kL ? V::load(p) : V::load_partial(p, n);
  }
  SPRUN_INLINE static void store(V v, float* p, int64_t n) {
    if (n == kL) {
      v.store(p);
    } else {
      v.store_partial(p, n);
    }
  }

  // Calls step(accumulator index, column, lanes) for all columns, four independent accumulators in
  // turn.
  template <class Step>
  SPRUN_INLINE static void sweep(int64_t n, Step step) {
    int64_t c = 0;
    for (; c + 4 * kL <= n; c += 4 * kL) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) step(i, c + i * kL, kL);
    }
    for (; c + kL <= n; c += kL) step(0, c, kL);
    if (c < n) step(0, c, n - c);
  }

  SPRUN_INLINE static float total(const V (&acc)[4]) {
    return ((acc[0] + acc[1]) + (acc[2] + acc[3])).reduce_add();
  }

  // to[c] = x[c] + residual[c] + bias[c]; residual or bias may be null. Returns the sum of the row,
  // or of its squares.
  template <bool kSquares>
  static float add_row(const float* x, const float* residual, const float* bias, int64_t n,
                       float* to) {
    V acc[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    sweep(
        n, [&](int i, int64_t c, int64_t lanes) __attribute__((always_inline)) {
          V v = load(x + c, lanes);
          if (residual != nullptr) v = v + load(residual + c, lanes);
          if (bias != nullptr) v = v + load(bias + c, lanes);
          store(v, to + c, lanes);
          acc[i] = kSquares ? V::fma(v, v, acc[i]) : acc[i] + v;
        });
    return total(acc);
  }

  template <bool kSquares>
  static float sum_row(const float* x, int64_t n) {
    V acc[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    sweep(
        n, [&](int i, int64_t c, int64_t lanes) __attribute__((always_inline)) {
          const V v = load(x + c, lanes);
          acc[i] = kSquares ? V::fma(v, v, acc[i]) : acc[i] + v;
        });
    return total(acc);
  }

  // sum of (x - mean)^2
  static float centred_squares(const float* x, float mean, int64_t n) {
    const V m = V::broadcast(mean);
    V acc[4] = {V::zero(), V::zero(), V::zero(), V::zero()};
    int64_t c = 0;
    for (; c + 4 * kL <= n; c += 4 * kL) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const V d = V::load(x + c + i * kL) - m;
        acc[i] = V::fma(d, d, acc[i]);
      }
    }
    for (; c + kL <= n; c += kL) {
      const V d = V::load(x + c) - m;
      acc[0] = V::fma(d, d, acc[0]);
    }
    float result = total(acc);
    for (; c < n; ++c)
      result += (x[c] - mean) * (x[c] - mean);  // a partial load would count its zeros
    return result;
  }

  // y = (x - mean) * inv_std * gamma + beta. The subtraction comes first: it is exact where mean is
  // close to x.
  static void scale_row(const float* x, float mean, float inv_std, const RowNormArgs& args,
                        float* y) {
    const V m = V::broadcast(mean);
    const V s = V::broadcast(inv_std);
    sweep(
        args.n, [&](int, int64_t c, int64_t lanes) __attribute__((always_inline)) {
          V v = (load(x + c, lanes) - m) * s;
          if (args.gamma != nullptr) {
            const V gamma = load(args.gamma + c, lanes);
            v = args.beta != nullptr ? V::fma(v, gamma, load(args.beta + c, lanes)) : v * gamma;
          } else if (args.beta != nullptr) {
            v = v + load(args.beta + c, lanes);
          }
          store(v, y + c, lanes);
        });
  }

  template <bool kRms>
  static void run(const RowNormArgs& args, int64_t begin, int64_t end) {
    const int64_t n = args.n;
    const float count = static_cast<float>(n);
    const bool adds = args.residual != nullptr || args.bias != nullptr || args.sum != nullptr;
    for (int64_t r = begin; r < end; ++r) {
      const float* x = args.x + r * n;
      float* y = args.y + r * n;
      float total_row;
      if (adds) {
        const float* residual =
            args.residual == nullptr ? nullptr : args.residual + r % args.residual_rows * n;
        float* to = args.sum == nullptr ? y : args.sum + r * n;
        total_row = add_row<kRms>(x, residual, args.bias, n, to);
        x = to;
      } else {
        total_row = sum_row<kRms>(x, n);
      }
      const float mean = kRms ? 0.0F : total_row / count;
      const float squares = kRms ? total_row : centred_squares(x, mean, n);
      const float inv_std = 1.0F / __builtin_sqrtf(squares / count + args.epsilon);
      if (args.mean != nullptr) args.mean[r] = mean;
      if (args.inv_std != nullptr) args.inv_std[r] = inv_std;
      scale_row(x, mean, inv_std, args, y);
    }
  }
};

template <class Arch>
inline constexpr RowNormKernel kRowNorm = {RowNorm<Arch>::template run<false>,
                                           RowNorm<Arch>::template run<true>};

}  // namespace sprun::kernels::norm
