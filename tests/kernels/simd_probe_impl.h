// Body of simd_probe.h, instantiated per Arch by simd_probe_<isa>.cc.
#pragma once

#include "kernels/simd/math.h"
#include "tests/kernels/simd_probe.h"

namespace sprun::kernels::simd_probe {

#define SPRUN_PROBE_MAP(name)                                                \
  template <class A>                                                         \
  void name##_fn(const float* x, float* y, int64_t n) {                      \
    simd::map<A>(x, y, n, [](auto v) __attribute__((always_inline)) { return simd::name(v); }); \
  }
SPRUN_PROBE_MAP(exp)
SPRUN_PROBE_MAP(log)
SPRUN_PROBE_MAP(tanh)
SPRUN_PROBE_MAP(erf)
SPRUN_PROBE_MAP(sigmoid)
SPRUN_PROBE_MAP(silu)
SPRUN_PROBE_MAP(gelu_erf)
SPRUN_PROBE_MAP(gelu_tanh)
SPRUN_PROBE_MAP(quick_gelu)
#undef SPRUN_PROBE_MAP

// Three vectors at a time; lanes past n are zeros.
template <class A, class Fn>
void map_three(const float* x, float* y, int64_t n, Fn fn) {
  using V = simd::F32<A>;
  const auto lanes = [n](int64_t i) -> int64_t { return n < i ? 0 : n - i < V::kLanes ? n - i : V::kLanes; };
  for (int64_t i = 0; i < n; i += 3 * V::kLanes) {
    V v[3];
    for (int j = 0; j < 3; ++j) v[j] = V::load_partial(x + i + j * V::kLanes, lanes(i + j * V::kLanes));
    fn(v);
    for (int j = 0; j < 3; ++j) v[j].store_partial(y + i + j * V::kLanes, lanes(i + j * V::kLanes));
  }
}

template <class A>
void gelu_erf_all_fn(const float* x, float* y, int64_t n) {
  map_three<A>(x, y, n, [](auto& v) __attribute__((always_inline)) { simd::gelu_erf_all(v); });
}

template <class A>
void gelu_erf_codes_fn(const float* x, float* y, int64_t n) {
  map_three<A>(x, y, n, [](auto& v) __attribute__((always_inline)) { simd::gelu_erf_codes_all(v); });
}

template <class A>
void round_even_fn(const float* x, float* y, int64_t n) {
  simd::map<A>(x, y, n, [](auto v) __attribute__((always_inline)) {
    return decltype(v)::round_even(v);
  });
}

template <class A>
void through_bf16_fn(const float* x, float* y, int64_t n) {
  using V = simd::F32<A>;
  uint16_t half[16];
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) {
    V::load(x + i).store_bf16(half);
    V::load_bf16(half).store(y + i);
  }
  V::load_partial(x + i, n - i).store_bf16_partial(half, n - i);
  V::load_bf16_partial(half, n - i).store_partial(y + i, n - i);
}

template <class A>
void through_f16_fn(const float* x, float* y, int64_t n) {
  using V = simd::F32<A>;
  uint16_t half[16];
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) {
    V::load(x + i).store_f16(half);
    V::load_f16(half).store(y + i);
  }
  V::load_partial(x + i, n - i).store_f16_partial(half, n - i);
  V::load_f16_partial(half, n - i).store_partial(y + i, n - i);
}

template <class A>
void load_store_partial_fn(const float* x, float* y, int64_t n) {
  simd::F32<A>::load_partial(x, n).store_partial(y, n);
}
template <class A>
float reduce_add_fn(const float* x) {
  return simd::F32<A>::load(x).reduce_add();
}
template <class A>
float reduce_max_fn(const float* x) {
  return simd::F32<A>::load(x).reduce_max();
}
template <class A>
float reduce_min_fn(const float* x) {
  return simd::F32<A>::load(x).reduce_min();
}

template <class A>
void quantise_fn(const float* x, uint8_t* y, int64_t n) {
  using V = simd::F32<A>;
  using I = simd::I32<A>;
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) I::from_f32(V::load(x + i)).store_u8_sat(y + i);
  I::from_f32(V::load_partial(x + i, n - i)).store_u8_sat_partial(y + i, n - i);
}

template <class A>
inline constexpr Probe kProbe = {
    exp_fn<A>,          log_fn<A>,         tanh_fn<A>,       erf_fn<A>,          sigmoid_fn<A>,
    silu_fn<A>,         gelu_erf_fn<A>,    gelu_erf_all_fn<A>, gelu_erf_codes_fn<A>, gelu_tanh_fn<A>,
    quick_gelu_fn<A>,   round_even_fn<A>,  through_bf16_fn<A>, through_f16_fn<A>,  load_store_partial_fn<A>,
    reduce_add_fn<A>,   reduce_max_fn<A>,  reduce_min_fn<A>, quantise_fn<A>,     simd::F32<A>::kLanes};

}  // namespace sprun::kernels::simd_probe
