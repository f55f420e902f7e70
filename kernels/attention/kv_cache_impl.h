// Bodies that write rows of the KV cache, instantiated per Arch by kv_cache_<isa>.cc. Formulas: kv_cache.h.
#pragma once

#include "kernels/attention/kv_cache_types.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::attn {

template <class A>
void store_rows_bf16(const float* x, int64_t x_row, int64_t rows, int64_t dim, uint16_t* cache) {
  using V = simd::F32<A>;
  for (int64_t r = 0; r < rows; ++r, x += x_row, cache += dim) {
    int64_t d = 0;
    for (; d + V::kLanes <= dim; d += V::kLanes) V::load(x + d).store_bf16(cache + d);
    if (d < dim) V::load_partial(x + d, dim - d).store_bf16_partial(cache + d, dim - d);
  }
}

// The largest |x| of a row; NaN if one is not finite.
template <class A>
SPRUN_INLINE float row_peak(const float* x, int64_t dim) {
  using V = simd::F32<A>;
  V top = V::zero(), bad = V::zero();  // 0 times a value that is not finite is NaN, and stays in a sum
  const auto take = [&](V v) __attribute__((always_inline)) {
    top = V::max(V::abs(v), top);
    bad = V::fma(v, V::zero(), bad);
  };
  int64_t d = 0;
  for (; d + V::kLanes <= dim; d += V::kLanes) take(V::load(x + d));
  if (d < dim) take(V::load_partial(x + d, dim - d));
  return top.reduce_max() + bad.reduce_add();
}

template <class A>
void store_rows_s8(const float* x, int64_t x_row, int64_t rows, int64_t dim, int8_t* cache, float* scales) {
  using V = simd::F32<A>;
  using I = simd::I32<A>;
  for (int64_t r = 0; r < rows; ++r, x += x_row, cache += dim) {
    const float peak = row_peak<A>(x, dim);
    if (!(peak >= 0x1p-100F)) {
      for (int64_t d = 0; d < dim; ++d) cache[d] = 0;
      scales[r] = peak == peak ? 0.0F : __builtin_nanf("");
      continue;
    }
    scales[r] = peak / 127.0F;
    // The product may round up past 127 by a unit in the last place, which rounds back to 127.
    const V inverse = V::broadcast(127.0F / peak);
    auto* to = reinterpret_cast<uint8_t*>(cache);
    // The low bytes of the integers: no byte saturates.
    const auto codes = [&](V v) __attribute__((always_inline)) { return I::from_f32(v * inverse) & I::broadcast(255); };
    int64_t d = 0;
    for (; d + V::kLanes <= dim; d += V::kLanes) codes(V::load(x + d)).store_u8_sat(to + d);
    if (d < dim) codes(V::load_partial(x + d, dim - d)).store_u8_sat_partial(to + d, dim - d);
  }
}

template <class A>
inline constexpr KvCacheKernel kKvCache = {.store_bf16 = store_rows_bf16<A>, .store_s8 = store_rows_s8<A>};

}  // namespace sprun::kernels::attn
