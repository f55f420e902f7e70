// Where Q, K and V of the fused attention nodes lie: layouts and offsets are attributes of sprun.Attention
// (fused_attention.cc).
#pragma once

#include <string>

#include "graph/ops/attention_util.h"

namespace sprun::graph {

// Where one of Q, K and V lies.
struct AttentionOperand {
  int64_t batch = 0, rows = 0, offset = 0;
  kernels::AttentionStrides strides;
};

template <class Ctx>
Result<AttentionOperand> read_attention_operand(const Ctx& ctx, int input, char name, int64_t heads, int64_t dim) {
  const Node& node = ctx.node();
  const Shape& s = ctx.input(input).shape;
  const std::string prefix(1, name);
  const std::string_view layout = ctx.attrs().get_string(prefix + "_layout", "bshd");
  const int64_t offset = ctx.attrs().get_int(prefix + "_offset", 0);
  const auto refuse = [&] {
    return op_error(node, prefix + " of shape " + s.to_string() + " does not fit layout " + std::string(layout) +
                              " with " + std::to_string(heads) + " heads of " + std::to_string(dim) + " from column " +
                              std::to_string(offset));
  };
  if (s.rank() == 3) {
    if (layout != "bshd" || offset < 0 || offset > s[2] || heads * dim > s[2] - offset) return refuse();
    return AttentionOperand{s[0], s[1], offset, {s[1] * s[2], dim, s[2], 1}};
  }
  if (s.rank() != 4 || offset != 0) return refuse();
  if (layout == "bshd" && s[2] == heads && s[3] == dim) {
    return AttentionOperand{s[0], s[1], 0, kernels::bshd_strides(heads, s[1], dim)};
  }
  if (layout == "bhsd" && s[1] == heads && s[3] == dim) {
    return AttentionOperand{s[0], s[2], 0, kernels::bhsd_strides(heads, s[2], dim)};
  }
  if (layout == "bhds" && name == 'k' && s[1] == heads && s[2] == dim) {
    return AttentionOperand{s[0], s[3], 0, {heads * dim * s[3], dim * s[3], 1, s[3]}};
  }
  return refuse();
}

}  // namespace sprun::graph
