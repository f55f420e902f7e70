// Bodies of the elementwise family, instantiated per Arch by elementwise_<isa>.cc.
#pragma once

#include "kernels/elementwise/elementwise_types.h"
#include "kernels/simd/math.h"

namespace sprun::kernels::elementwise {

template <class Arch, MapOp kOp>
struct Map;
#define SPRUN_MAP(enumerator, vector, reference, ulps, absolute)     \
  template <class Arch>                                              \
  struct Map<Arch, MapOp::enumerator> {                              \
    using V = simd::F32<Arch>;                                       \
    [[maybe_unused]] V a, b;                                         \
    SPRUN_INLINE V operator()(V x) const {                           \
      [[maybe_unused]] const V zero = V::zero();                     \
      [[maybe_unused]] const V one = V::broadcast(1.0F);             \
      [[maybe_unused]] const V inf = V::broadcast(__builtin_inff()); \
      return vector;                                                 \
    }                                                                \
  };
#include "kernels/elementwise/map_ops.def"

template <class Arch, MapOp kOp>
void map_fn(const float* x, float* y, int64_t n, float a, float b) {
  using V = simd::F32<Arch>;
  simd::map<Arch>(x, y, n, Map<Arch, kOp>{V::broadcast(a), V::broadcast(b)});
}

template <class Arch, MapOp kOp>
void bias_map_fn(const float* x, const float* bias, float* y, int64_t n) {
  using V = simd::F32<Arch>;
  const Map<Arch, kOp> f{V::zero(), V::zero()};
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) f(V::load(x + i) + V::load(bias + i)).store(y + i);
  if (i < n)
    f(V::load_partial(x + i, n - i) + V::load_partial(bias + i, n - i)).store_partial(y + i, n - i);
}

template <BinaryOp kOp, class V>
SPRUN_INLINE V combine(V a, V b) {
  if constexpr (kOp == BinaryOp::kAdd) return a + b;
  if constexpr (kOp == BinaryOp::kSub) return a - b;
  if constexpr (kOp == BinaryOp::kMul) return a * b;
  if constexpr (kOp == BinaryOp::kDiv) return a / b;
}

template <class Arch, BinaryOp kOp>
void binary_fn(const float* a, int64_t a_step, const float* b, int64_t b_step, float* y,
               int64_t n) {
  using V = simd::F32<Arch>;
  if (n <= 0) return;
  int64_t i = 0;
  if (a_step != 0 && b_step != 0) {
    for (; i + V::kLanes <= n; i += V::kLanes)
      combine<kOp>(V::load(a + i), V::load(b + i)).store(y + i);
    if (i < n) {
      combine<kOp>(V::load_partial(a + i, n - i), V::load_partial(b + i, n - i))
          .store_partial(y + i, n - i);
    }
  } else if (a_step != 0) {
    const V right = V::broadcast(*b);
    for (; i + V::kLanes <= n; i += V::kLanes) combine<kOp>(V::load(a + i), right).store(y + i);
    if (i < n) combine<kOp>(V::load_partial(a + i, n - i), right).store_partial(y + i, n - i);
  } else {
    const V left = V::broadcast(*a);
    const V single = V::broadcast(*b);
    for (; i + V::kLanes <= n; i += V::kLanes) {
      combine<kOp>(left, b_step != 0 ? V::load(b + i) : single).store(y + i);
    }
    if (i < n) {
      combine<kOp>(left, b_step != 0 ? V::load_partial(b + i, n - i) : single)
          .store_partial(y + i, n - i);
    }
  }
}

template <class Arch>
void f16_to_f32_fn(const uint16_t* x, float* y, int64_t n) {
  using V = simd::F32<Arch>;
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) V::load_f16(x + i).store(y + i);
  if (i < n) V::load_f16_partial(x + i, n - i).store_partial(y + i, n - i);
}

template <class Arch>
void bf16_to_f32_fn(const uint16_t* x, float* y, int64_t n) {
  using V = simd::F32<Arch>;
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) V::load_bf16(x + i).store(y + i);
  if (i < n) V::load_bf16_partial(x + i, n - i).store_partial(y + i, n - i);
}

template <class Arch>
void f32_to_f16_fn(const float* x, uint16_t* y, int64_t n) {
  using V = simd::F32<Arch>;
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) V::load(x + i).store_f16(y + i);
  if (i < n) V::load_partial(x + i, n - i).store_f16_partial(y + i, n - i);
}

template <class Arch>
void f32_to_bf16_fn(const float* x, uint16_t* y, int64_t n) {
  using V = simd::F32<Arch>;
  int64_t i = 0;
  for (; i + V::kLanes <= n; i += V::kLanes) V::load(x + i).store_bf16(y + i);
  if (i < n) V::load_partial(x + i, n - i).store_bf16_partial(y + i, n - i);
}

template <class Arch>
inline constexpr ElementwiseKernel kElementwise = {
    {
#define SPRUN_MAP(enumerator, vector, reference, ulps, absolute) map_fn<Arch, MapOp::enumerator>,
#include "kernels/elementwise/map_ops.def"
    },
    {binary_fn<Arch, BinaryOp::kAdd>, binary_fn<Arch, BinaryOp::kSub>,
     binary_fn<Arch, BinaryOp::kMul>, binary_fn<Arch, BinaryOp::kDiv>},
    bias_map_fn<Arch, MapOp::kGeluErf>,
    bias_map_fn<Arch, MapOp::kGeluTanh>,
    f16_to_f32_fn<Arch>,
    bf16_to_f32_fn<Arch>,
    f32_to_f16_fn<Arch>,
    f32_to_bf16_fn<Arch>};

}  // namespace sprun::kernels::elementwise
