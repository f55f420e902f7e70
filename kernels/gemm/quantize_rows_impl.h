// Dynamic quantisation bodies, instantiated per Arch by quantize_rows_<isa>.cc.
#pragma once

#include "kernels/gemm/gemm_types.h"
#include "kernels/simd/quantize.h"

namespace sprun::kernels::gemm {

template <class Arch>
void min_max_rows(const float* x, int64_t ldx, int64_t rows, int64_t k, float* min, float* max) {
  using V = simd::F32<Arch>;
  const V inf = V::broadcast(__builtin_inff());
  // Two pairs of accumulators: one min or max waits for the one before it.
  V lo[2] = {inf, inf};
  V hi[2] = {-inf, -inf};
  float tail_lo = __builtin_inff();
  float tail_hi = -__builtin_inff();
  for (int64_t r = 0; r < rows; ++r) {
    const float* in = x + r * ldx;
    int64_t i = 0;
    for (; i + 2 * V::kLanes <= k; i += 2 * V::kLanes) {
      const V a = V::load(in + i);
      const V b = V::load(in + i + V::kLanes);
      lo[0] = V::min(a, lo[0]);  // second operand on NaN
      hi[0] = V::max(a, hi[0]);
      lo[1] = V::min(b, lo[1]);
      hi[1] = V::max(b, hi[1]);
    }
    for (; i + V::kLanes <= k; i += V::kLanes) {
      lo[0] = V::min(V::load(in + i), lo[0]);
      hi[0] = V::max(V::load(in + i), hi[0]);
    }
    for (; i < k; ++i) {
      tail_lo = in[i] < tail_lo ? in[i] : tail_lo;
      tail_hi = in[i] > tail_hi ? in[i] : tail_hi;
    }
  }
  const float vec_lo = V::min(lo[0], lo[1]).reduce_min();
  const float vec_hi = V::max(hi[0], hi[1]).reduce_max();
  *min = vec_lo < tail_lo ? vec_lo : tail_lo;
  *max = vec_hi > tail_hi ? vec_hi : tail_hi;
}

template <class Arch>
void quantize_rows(const float* x, int64_t ldx, int64_t rows, int64_t k, float scale,
                   int32_t zero_point, uint8_t* y, int64_t ldy, int32_t* sums) {
  using V = simd::F32<Arch>;
  using I = simd::I32<Arch>;
  const simd::ToU8<Arch> convert(scale, zero_point);
  for (int64_t r = 0; r < rows; ++r) {
    const float* in = x + r * ldx;
    uint8_t* out = y + r * ldy;
    int64_t i = 0;
    for (; i + 4 * V::kLanes <= k; i += 4 * V::kLanes) {
      using S = simd::Interleave<Arch>;
      V v[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) v[j] = V::load(in + i + j * V::kLanes);
      S::store(out + i, S::in_order(convert.bytes(v)));
    }
    for (; i + V::kLanes <= k; i += V::kLanes) convert(V::load(in + i)).store_u8_sat(out + i);
    if (i < k) convert(V::load_partial(in + i, k - i)).store_u8_sat_partial(out + i, k - i);
    if (sums == nullptr) continue;
    I sum = I::zero();
    for (i = 0; i + V::kLanes <= k; i += V::kLanes) sum = sum + I::load_u8(out + i);
    int32_t tail = 0;
    for (; i < k; ++i) tail += out[i];
    sums[r] = sum.reduce_add() + tail;
  }
}

template <class Arch>
inline constexpr QuantizeRowsKernel kQuantizeRows = {min_max_rows<Arch>, quantize_rows<Arch>};

}  // namespace sprun::kernels::gemm
