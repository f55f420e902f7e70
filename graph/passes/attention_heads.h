// How the operands of attention reach its products in the graphs of exporters: the transposes, scalar factors, repeated
// heads and dequantised codes that sprun.Attention reads through. Plan stage: shapes tell what is a head.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/passes/quantize_params.h"

namespace sprun::graph {

// An operand as the kernel will read it.
struct HeadsOperand {
  ValueId value = kNoValue;
  std::string layout;    // "bhsd", "bshd" or "bhds"
  int64_t heads = 0;
  double factor = 1;     // scalar factors passed on the way
  int64_t offset = 0;    // first column inside a packed row
  std::optional<QuantizeParams> codes = {};  // value is these codes
};

// The shape of a value, null if it is not known.
const Shape* shape_of(const Graph& graph, ValueId v);

bool has_perm(const Node& transpose, const std::vector<int64_t>& perm);

// Passes over Mul and Div by a scalar constant.
ValueId skip_scalars(const Graph& graph, ValueId v, double& factor);

// Reads an operand given as [B,H,S,D]; in_codes: through its DequantizeLinear.
HeadsOperand read_heads(const Graph& graph, ValueId v, bool in_codes);

// Reads K given as [B,H,D,T], alike.
HeadsOperand read_transposed_heads(const Graph& graph, ValueId v, bool in_codes);

}  // namespace sprun::graph
