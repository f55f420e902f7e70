#include "runtime/generate/last_row.h"

#include <algorithm>
#include <array>
#include <vector>

#include "graph/ir/pattern.h"

namespace sprun {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

// True if the tensor is added to or multiplied with each row alike.
bool is_per_row(const Graph& graph, ValueId v) {
  const Tensor* tensor = graph.constant(v);
  if (tensor == nullptr) return false;
  const Shape& shape = tensor->shape();
  return shape.rank() == 0 || tensor->num_elements() == shape.back();
}

// Whether row i of the result depends on row i of input 0 alone.
bool is_row_wise(const Graph& graph, const Node& node) {
  constexpr std::array<std::string_view, 4> kUnary = {"Tanh", "Cast", "Identity", "Neg"};
  const auto constant_after = [&](size_t first) {
    return std::all_of(node.inputs.begin() + static_cast<ptrdiff_t>(first), node.inputs.end(),
                       [&](ValueId v) { return v == kNoValue || graph.constant(v) != nullptr; });
  };
  if (node.is("sprun", "Linear")) return constant_after(1);
  if (!node.domain.empty()) return false;
  if (node.op_type == "MatMul") return graph.constant(node.inputs[1]) && graph.constant(node.inputs[1])->shape().rank() == 2;
  if (node.op_type == "Add" || node.op_type == "Mul" || node.op_type == "Div" || node.op_type == "Sub") {
    return is_per_row(graph, node.inputs[1]);
  }
  return std::find(kUnary.begin(), kUnary.end(), node.op_type) != kUnary.end();
}

bool is_linear(const Node& node) { return node.is("sprun", "Linear") || node.is("MatMul"); }

// The linear layer nearest to the body of the model, and all nodes from it to the output.
std::vector<NodeId> head_of(const Graph& graph) {
  std::vector<NodeId> chain, head;
  ValueId v = graph.outputs()[0];
  for (int depth = 0; depth < 16; ++depth) {
    const NodeId n = graph.value(v).producer;
    if (n == kNoNode || !is_row_wise(graph, graph.node(n)) || !graph.has_one_use(v)) break;
    chain.push_back(n);
    if (is_linear(graph.node(n))) head = chain;
    v = graph.node(n).inputs[0];
  }
  return head;
}

}  // namespace

Result<bool> keep_last_row(Graph& graph, int64_t tokens) {
  const std::vector<NodeId> head = head_of(graph);
  if (tokens < 2 || head.empty()) return false;
  const NodeId first = head.back();
  const ValueId rows = graph.node(first).inputs[0];
  const auto shape = graph.value(rows).shape;
  if (!shape || shape->rank() < 2 || (*shape)[shape->rank() - 2] != tokens) return false;
  SPRUN_ASSIGN(const ValueId cut, graph::add_slice(graph, rows, shape->rank() - 2, tokens - 1, tokens, "last_row"));
  graph.set_input(first, 0, cut);
  for (NodeId n : head) graph.value(graph.node(n).outputs[0]).shape.reset();
  return true;
}

}  // namespace sprun
