// Between two 8-bit linear layers whose sparse kernels have rows of X as lanes, the value stays the way the first one
// makes it ("columns", graph/ops/columns.h): the first does not turn it around, the second does not turn it back, and
// floats come with their range, so that no pass over memory looks for it.
//
//   LinearInt8 --y--> LinearInt8     y has no other reader; no residual between them; one weight in the first
//
// Only where both layers will take such a kernel, which is asked in the same way as when it is chosen, and few lanes stay
// empty.
#include "graph/ir/pattern.h"
#include "graph/ops/columns.h"
#include "graph/ops/linear_int8.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

Result<bool> takes_columns(const Graph& graph, const Node& node, int64_t m, int64_t k, const PassContext& ctx) {
  SPRUN_ASSIGN(const LinearAttrs attrs, linear_attrs(node.attrs));
  const LinearInt8Weights constants = linear_int8_weights(attrs, m, k, [&](int i) -> ConstantInput {
    const ValueId v = node.input(static_cast<size_t>(i));
    if (v == kNoValue) return {};
    return {true, graph.constant(v)};
  });
  if (!constants.refusal.empty()) return false;
  SPRUN_ASSIGN(const auto* kernel, SparseInt8::columns_kernel(*ctx.packed, ctx.sparse, m, constants.weights));
  return kernel != nullptr;
}

// The layer that alone reads y, as X; kNoNode if there is none or it cannot read columns.
NodeId reader_of(const Graph& graph, const Node& first) {
  const LinearLayout at = linear_layout(first);
  const bool plain = first.is("sprun", "LinearInt8") && at.n == 1 && first.outputs.size() == 1 &&
                     first.attrs.get_string("x_quant", "dynamic_tensor") != "dynamic_row" &&
                     first.attrs.find("y_columns") == nullptr && first.input(at.residual()) == kNoValue;
  if (!plain) return kNoNode;
  const ValueId y = first.outputs[0];
  const NodeId next = only_user(graph, y);
  if (next == kNoNode || !graph.node(next).is("sprun", "LinearInt8") || graph.node(next).input(0) != y) return kNoNode;
  const Node& second = graph.node(next);
  const bool codes = first.input(at.y_scale()) != kNoValue;
  const std::string_view wanted = codes ? "static" : "dynamic_tensor";
  if (second.attrs.get_string("x_quant", "dynamic_tensor") != wanted) return kNoNode;
  return second.input(linear_layout(second).residual()) == y ? kNoNode : next;
}

// Columns are whole vectors of rows: activations of rows past M are computed for nothing.
int64_t wasted_rows(int64_t m) { return (16 - m % 16) % 16; }

Result<bool> keep(Graph& graph, NodeId n, const PassContext& ctx) {
  const NodeId next = reader_of(graph, graph.node(n));
  if (next == kNoNode) return false;
  const ValueId y = graph.node(n).outputs[0];
  const auto y_shape = graph.value(y).shape;
  const auto& w_shape = graph.value(graph.node(n).inputs[linear_layout(graph.node(n)).weight(0)]).shape;
  if (!y_shape || y_shape->rank() < 1 || !w_shape || w_shape->rank() != 2) return false;
  const int64_t m = y_shape->num_elements(0, y_shape->rank() - 1);
  if (wasted_rows(m) * 8 > m) return false;
  const int64_t k = (*w_shape)[graph.node(n).attrs.get_int("trans_w", 0) != 0 ? 1 : 0];
  SPRUN_ASSIGN(const bool first, takes_columns(graph, graph.node(n), m, k, ctx));
  if (!first) return false;
  SPRUN_ASSIGN(const bool second, takes_columns(graph, graph.node(next), m, y_shape->back(), ctx));
  if (!second) return false;
  const Shape logical = *y_shape;
  graph.node(n).attrs.set("y_columns", int64_t{1});
  graph.node(next).attrs.set("x_shape", std::vector<int64_t>(logical.dims().begin(), logical.dims().end()));
  graph.value(y).shape = Columns::shape(m, logical.back());
  if (graph.value(y).dtype != DType::kF32) {
    graph.value(y).dtype = DType::kU8;
    return true;
  }
  const ValueId range = graph.add_value(graph.unique_name(graph.value(y).name + "_range"));
  graph.value(range).dtype = DType::kF32;
  graph.value(range).shape = Shape{2};
  graph.value(range).producer = n;
  graph.node(n).outputs.push_back(range);
  graph.set_input(next, linear_layout(graph.node(next)).x_range(), range);
  return true;
}

}  // namespace

Result<int> pass_keep_columns(Graph& graph, PassContext& ctx) {
  if (ctx.packed == nullptr) return 0;
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int kept = 0;
  for (NodeId n : order) {
    if (graph.node(n).dead) continue;
    SPRUN_ASSIGN(const bool did, keep(graph, n, ctx));
    kept += did ? 1 : 0;
  }
  return kept;
}

}  // namespace sprun::graph
