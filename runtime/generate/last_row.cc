#include "runtime/generate/last_row.h"

#include <algorithm>
#include <array>
#include <vector>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"

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

// Takes the range of its codes from all rows together.
bool quantises_all_rows(const Node& node) {
  return node.is("sprun", "LinearInt8") && node.attrs.get_string("x_quant", "dynamic_tensor") == "dynamic_tensor";
}

// Whether row i of the result depends on row i of input 0 alone, or on its codes.
bool is_row_wise(const Graph& graph, const Node& node) {
  constexpr std::array<std::string_view, 4> kUnary = {"Tanh", "Cast", "Identity", "Neg"};
  const auto constant_after = [&](size_t first) {
    return std::all_of(node.inputs.begin() + static_cast<ptrdiff_t>(first), node.inputs.end(),
                       [&](ValueId v) { return v == kNoValue || graph.constant(v) != nullptr; });
  };
  if (node.is("sprun", "Linear")) return constant_after(1);
  if (node.is("sprun", "LinearInt8") || node.is("sprun", "LinearDequant")) {
    return node.attrs.get_int("num_weights", 1) == 1 && constant_after(1);
  }
  if (!node.domain.empty()) return false;
  if (node.op_type == "MatMul") return graph.constant(node.inputs[1]) && graph.constant(node.inputs[1])->shape().rank() == 2;
  if (node.op_type == "Add" || node.op_type == "Mul" || node.op_type == "Div" || node.op_type == "Sub") {
    return is_per_row(graph, node.inputs[1]);
  }
  return std::find(kUnary.begin(), kUnary.end(), node.op_type) != kUnary.end();
}

bool is_linear(const Node& node) {
  return node.is("sprun", "Linear") || node.is("sprun", "LinearInt8") || node.is("sprun", "LinearDequant") ||
         node.is("MatMul");
}

// One node uses it, or it is the output and no node does.
bool has_one_use(const Graph& graph, ValueId v) {
  return graph.value(v).users.size() + (graph.is_output(v) ? 1 : 0) == 1;
}

// The linear layer nearest to the body of the model, and all nodes from it to the output.
std::vector<NodeId> head_of(const Graph& graph) {
  std::vector<NodeId> chain, head;
  ValueId v = graph.outputs()[0];
  for (int depth = 0; depth < 16; ++depth) {
    const NodeId n = graph.value(v).producer;
    if (n == kNoNode || !is_row_wise(graph, graph.node(n)) || !has_one_use(graph, v)) break;
    chain.push_back(n);
    if (is_linear(graph.node(n))) head = chain;
    if (quantises_all_rows(graph.node(n))) break;
    v = graph.node(n).inputs[0];
  }
  return head;
}

// Quantises before the layer what it quantised itself, all rows of x; returns the codes.
ValueId quantise_before(Graph& graph, NodeId layer, ValueId x) {
  constexpr size_t kXScale = 6, kXZero = 7;  // inputs of sprun.LinearInt8 with one weight
  const std::string name = graph.node(layer).name + "/quantize_rows";
  const NodeId quantise = graph.add_node(
      "", "DynamicQuantizeLinear", 11, {x},
      {graph.unique_name(name), graph.unique_name(name + "/scale"), graph.unique_name(name + "/zero_point")});
  graph.node(quantise).name = name;
  graph.node(quantise).def = graph::find_op("", "DynamicQuantizeLinear", 11);
  const std::vector<ValueId> made = graph.node(quantise).outputs;
  const DType types[] = {DType::kU8, DType::kF32, DType::kU8};
  for (size_t i = 0; i < made.size(); ++i) {
    graph.value(made[i]).dtype = types[i];
    graph.value(made[i]).shape = i == 0 ? graph.value(x).shape : Shape{};
  }
  graph.set_input(layer, kXScale, made[1]);
  graph.set_input(layer, kXZero, made[2]);
  graph.node(layer).attrs.set("x_quant", std::string("static"));
  return made[0];
}

}  // namespace

Result<bool> keep_last_row(Graph& graph, int64_t tokens) {
  const std::vector<NodeId> head = head_of(graph);
  if (tokens < 2 || head.empty()) return false;
  const NodeId first = head.back();
  ValueId rows = graph.node(first).inputs[0];
  const auto shape = graph.value(rows).shape;
  if (!shape || shape->rank() < 2 || (*shape)[shape->rank() - 2] != tokens) return false;
  const int axis = shape->rank() - 2;
  if (quantises_all_rows(graph.node(first))) rows = quantise_before(graph, first, rows);
  SPRUN_ASSIGN(const ValueId cut, graph::add_slice(graph, rows, axis, tokens - 1, tokens, "last_row"));
  graph.set_input(first, 0, cut);
  for (NodeId n : head) graph.value(graph.node(n).outputs[0]).shape.reset();
  return true;
}

}  // namespace sprun
