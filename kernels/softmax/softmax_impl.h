// Bodies of the softmax family, instantiated per Arch by softmax_<isa>.cc.
#pragma once

#include "kernels/simd/math.h"
#include "kernels/softmax/softmax_types.h"

namespace sprun::kernels::softmax {

// The largest element; anything if there is a NaN, which then shows in the sum.
template <class Arch>
SPRUN_INLINE float row_max(const float* x, int64_t n) {
  using V = simd::F32<Arch>;
  V m0 = V::broadcast(-__builtin_inff());
  V m1 = m0;
  int64_t i = 0;
  for (; i + 2 * V::kLanes <= n; i += 2 * V::kLanes) {
    m0 = V::max(m0, V::load(x + i));
    m1 = V::max(m1, V::load(x + i + V::kLanes));
  }
  float max = V::max(m0, m1).reduce_max();
  for (; i < n; ++i) max = x[i] > max ? x[i] : max;
  return max;
}

// y = e^(x - max) where kStore; returns the sum.
template <class Arch, bool kStore>
SPRUN_INLINE float exp_sum(const float* x, float* y, int64_t n, float max) {
  using V = simd::F32<Arch>;
  const V shift = V::broadcast(max);
  V s0 = V::zero();
  V s1 = V::zero();
  int64_t i = 0;
  for (; i + 2 * V::kLanes <= n; i += 2 * V::kLanes) {
    const V e0 = simd::exp(V::load(x + i) - shift);
    const V e1 = simd::exp(V::load(x + i + V::kLanes) - shift);
    if constexpr (kStore) {
      e0.store(y + i);
      e1.store(y + i + V::kLanes);
    }
    s0 = s0 + e0;
    s1 = s1 + e1;
  }
  for (; i < n; i += V::kLanes) {
    const int64_t count = n - i < V::kLanes ? n - i : V::kLanes;
    const V e = simd::exp(V::load_partial(x + i, count) - shift);
    if constexpr (kStore) e.store_partial(y + i, count);
    // Lanes past the end hold e^-max: they must not count.
    alignas(64) float lanes[V::kLanes] = {};
    e.store_partial(lanes, count);
    s0 = s0 + V::load(lanes);
  }
  return (s0 + s1).reduce_add();
}

template <class Arch>
void softmax_fn(const float* x, float* y, int64_t rows, int64_t n, int64_t ld) {
  using V = simd::F32<Arch>;
  for (int64_t r = 0; r < rows; ++r, x += ld, y += ld) {
    const float sum = exp_sum<Arch, true>(x, y, n, row_max<Arch>(x, n));
    const V scale = V::broadcast(1.0F / sum);
    int64_t i = 0;
    for (; i + V::kLanes <= n; i += V::kLanes) (V::load(y + i) * scale).store(y + i);
    if (i < n) (V::load_partial(y + i, n - i) * scale).store_partial(y + i, n - i);
  }
}

template <class Arch>
void log_softmax_fn(const float* x, float* y, int64_t rows, int64_t n, int64_t ld) {
  using V = simd::F32<Arch>;
  for (int64_t r = 0; r < rows; ++r, x += ld, y += ld) {
    const float max = row_max<Arch>(x, n);
    float log_sum;
    simd::log(V::broadcast(exp_sum<Arch, false>(x, y, n, max))).store_partial(&log_sum, 1);
    const V shift = V::broadcast(max);
    const V rest = V::broadcast(log_sum);
    int64_t i = 0;
    for (; i + V::kLanes <= n; i += V::kLanes) (V::load(x + i) - shift - rest).store(y + i);
    if (i < n) (V::load_partial(x + i, n - i) - shift - rest).store_partial(y + i, n - i);
  }
}

template <class Arch>
inline constexpr SoftmaxKernel kSoftmax = {softmax_fn<Arch>, log_softmax_fn<Arch>};

}  // namespace sprun::kernels::softmax
