// Padding masks of the com.microsoft attention ops: int32 tensors of several forms that become additive float masks.
#pragma once

#include <cstdint>

#include "graph/ops/attention_util.h"

namespace sprun::graph {

// With T keys in all (past and new):
//   [B] key lengths, [2B] ends then starts, [3B + 2] lengths then prefix sums      -> bias per key
//   [B, T] 1 = keep, 0 = masked                                                    -> bias per key
//   [B, S, T] and [B, 1, max, max] (rows past.. of a causal table)                 -> bias per query and key
// Masked keys get `filter` added, all others 0.
class PaddingMask {
 public:
  // Looks at input `index` (may be absent) and at the additive bias input `bias_index` (may be absent), which
  // broadcasts to [B, H, S, T]. args holds the sizes; past is the number of cached keys.
  template <class Ctx>
  static Result<PaddingMask> from(const Ctx& ctx, int index, int bias_index, int64_t past,
                                  kernels::AttentionArgs& args) {
    PaddingMask mask;
    if (ctx.has_input(index)) SPRUN_TRY(mask.classify(ctx.node(), ctx.input(index), past, args));
    if (ctx.has_input(bias_index)) SPRUN_TRY(mask.add_bias(ctx.node(), ctx.input(bias_index), args));
    mask.filter_ = ctx.attrs().get_float("mask_filter_value", -10000.0F);
    return mask;
  }

  // Floats of scratch that apply() needs.
  int64_t scratch_floats() const {
    return per_key_ ? batch_ * keys_ : per_row_ ? batch_ * mask_heads_ * rows_ * keys_ : 0;
  }

  // Reads the mask's elements and points args at the result.
  void apply(float* scratch, kernels::AttentionArgs& args) const;

 private:
  Status classify(const Node& node, const ConstTensorView& mask, int64_t past, kernels::AttentionArgs& args);
  Status add_bias(const Node& node, const ConstTensorView& bias, kernels::AttentionArgs& args);
  void fill_keys(float* out) const;
  void fill_rows(float* out, const kernels::AttentionArgs& args) const;
  bool masked(int64_t b, int64_t row, int64_t key) const;

  ConstTensorView mask_;
  int64_t batch_ = 0, rows_ = 0, keys_ = 0, past_ = 0, mask_heads_ = 1;
  bool per_key_ = false, per_row_ = false;
  float filter_ = 0;
};

}  // namespace sprun::graph
