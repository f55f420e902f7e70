// The linear layer inside com.microsoft Attention and QAttention: qkv[M, N] = x[M, K] w[K, N] + bias[N].
//
// Both are stateless types with the same functions: prepare() packs constant weights (null: nothing to keep, then run()
// is the plain loop), run() computes.
#pragma once

#include <memory>

#include "graph/ops/attention_util.h"

namespace sprun::graph {

// Inputs 0 x, 1 weights, 2 bias (optional), all of one float type; qkv has that type too.
struct FloatProjection {
  static Result<std::unique_ptr<ScratchState>> prepare(PrepareContext& ctx, int64_t m, int64_t n, int64_t k);
  // Of a step that prepare() made `state` for; 0 for null.
  static int64_t scratch_bytes(const OpState* state);
  static Status run(RunContext& ctx, int64_t m, int64_t n, int64_t k, void* qkv, void* scratch);
};

// Inputs 0 x, 1 weights (8-bit), 2 bias, 3 input scale, 4 weight scale, 6 and 7 zero points; the scales' float type is
// that of qkv:  qkv = x_scale * w_scale[n] * sum_k (x - x_zero)(w - w_zero[n]) + bias[n]
struct ByteProjection {
  static Result<std::unique_ptr<ScratchState>> prepare(PrepareContext& ctx, int64_t m, int64_t n, int64_t k);
  static int64_t scratch_bytes(const OpState* state);
  static Status run(RunContext& ctx, int64_t m, int64_t n, int64_t k, void* qkv, void* scratch);
};

}  // namespace sprun::graph
