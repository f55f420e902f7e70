// Where the inputs of sprun.Linear, LinearInt8 and LinearDequant are (graph/ops/linear.cc, linear_int8.cc,
// linear_dequant.cc), for passes.
#pragma once

#include "graph/ir/graph.h"

namespace sprun::graph {

// Positions of a linear node's inputs with n = num_weights.
struct LinearLayout {
  bool int8 = false;   // LinearInt8
  bool codes = false;  // weights are codes: LinearInt8, LinearDequant
  int n = 1;

  size_t weight(int i) const { return static_cast<size_t>(1 + i); }
  size_t scale(int i) const { return static_cast<size_t>(1 + n + i); }     // codes only
  size_t zero(int i) const { return static_cast<size_t>(1 + 2 * n + i); }  // codes only
  size_t bias(int i) const { return static_cast<size_t>(1 + (codes ? 3 : 1) * n + i); }
  size_t residual() const { return static_cast<size_t>(1 + (codes ? 4 : 2) * n); }
  size_t x_scale() const { return residual() + 1; }                         // int8 only, as the four below
  size_t x_zero() const { return residual() + 2; }
  size_t y_scale() const { return residual() + 3; }
  size_t y_zero() const { return residual() + 4; }
  size_t x_range() const { return residual() + 5; }
};

inline bool is_linear(const Node& node) {
  return node.is("sprun", "Linear") || node.is("sprun", "LinearInt8") || node.is("sprun", "LinearDequant");
}

inline LinearLayout linear_layout(const Node& node) {
  const bool int8 = node.op_type == "LinearInt8";
  return {int8, int8 || node.op_type == "LinearDequant", static_cast<int>(node.attrs.get_int("num_weights", 1))};
}

// Number of outputs N of weight i, or -1 if the weight has no known shape.
inline int64_t linear_width(const Graph& graph, const Node& node, int i) {
  const ValueId w = node.input(linear_layout(node).weight(i));
  if (w == kNoValue || !graph.value(w).shape || graph.value(w).shape->rank() != 2) return -1;
  return (*graph.value(w).shape)[node.attrs.get_int("trans_w", 0) ? 0 : 1];
}

}  // namespace sprun::graph
