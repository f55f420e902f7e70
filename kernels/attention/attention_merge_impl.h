// Attention over parts of the keys put together. The state of a part and row is (O, m, l): v_dim sums of exp(s - m) v,
// the maximum m and l = sum of exp(s - m). With M the largest m:
//   out = sum over parts of exp(m - M) O / sum over parts of exp(m - M) l        0 when no part has a key
// Parts are summed in their order, so the result does not depend on who computed them when.
#pragma once

#include "kernels/attention/attention_math.h"
#include "kernels/attention/attention_types.h"

namespace sprun::kernels::attn {

// factor[p] = exp(m[p] - M) / sum; state: of a row in the first part.
template <class A>
SPRUN_INLINE void part_factors(const float* state, int64_t parts, int64_t state_floats, int64_t v_dim, float* factor) {
  using V = F32<A>;
  float top = kNegInf;
  for (int64_t p = 0; p < parts; ++p) {
    factor[p] = state[p * state_floats + v_dim];
    top = factor[p] > top ? factor[p] : top;
  }
  const V low = safe_max(V::broadcast(top));
  for (int64_t p = 0; p < parts; p += V::kLanes) exp_score(V::load(factor + p) - low).store(factor + p);
  float sum = 0.0F;
  for (int64_t p = 0; p < parts; ++p) sum += factor[p] * state[p * state_floats + v_dim + 1];
  const float inverse = sum == 0.0F ? 0.0F : 1.0F / sum;
  for (int64_t p = 0; p < parts; ++p) factor[p] *= inverse;
}

template <class A>
void merge_parts(const AttentionBlock& block, const float* states, int64_t parts, int64_t state_floats) {
  using V = F32<A>;
  alignas(64) float factor[kAttentionMaxParts] = {};
  for (int64_t r = 0; r < block.rows; ++r) {
    const float* state = states + r * (block.v_dim + 2);
    part_factors<A>(state, parts, state_floats, block.v_dim, factor);
    for (int64_t d = 0; d < block.v_dim; d += V::kLanes) {
      const int64_t n = block.v_dim - d < V::kLanes ? block.v_dim - d : V::kLanes;
      V sum = V::zero();
      for (int64_t p = 0; p < parts; ++p) {
        sum = V::fma(V::broadcast(factor[p]), V::load_partial(state + p * state_floats + d, n), sum);
      }
      sum.store_partial(block.out[r] + d, n);
    }
  }
}

}  // namespace sprun::kernels::attn
