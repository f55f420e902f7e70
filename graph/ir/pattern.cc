#include "graph/ir/pattern.h"

#include <algorithm>
#include <cmath>

#include "graph/ops/op.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {

const Node* producer_is(const Graph& graph, ValueId v, std::string_view op) { return producer_is(graph, v, "", op); }

const Node* producer_is(const Graph& graph, ValueId v, std::string_view domain, std::string_view op) {
  const Node* node = graph.producer(v);
  return node && node->is(domain, op) ? node : nullptr;
}

NodeId only_user(const Graph& graph, ValueId v) {
  return graph.has_one_use(v) ? graph.value(v).users.front() : kNoNode;
}

std::optional<double> scalar_constant(const Graph& graph, ValueId v) {
  const Tensor* tensor = graph.constant(v);
  if (tensor == nullptr || tensor->num_elements() != 1) return std::nullopt;
  const auto scalar = read_scalar(tensor->view());
  return scalar.ok() ? std::optional(*scalar) : std::nullopt;
}

std::optional<std::vector<int64_t>> int_constant(const Graph& graph, ValueId v) {
  const Tensor* tensor = graph.constant(v);
  if (tensor == nullptr || tensor->num_elements() > 64) return std::nullopt;
  const auto ints = read_ints(tensor->view());
  return ints.ok() ? std::optional(*ints) : std::nullopt;
}

bool nearly(double a, double b) { return std::abs(a - b) <= 1e-4 * std::abs(b); }

ValueId other_input(const Node& node, ValueId v) {
  if (node.inputs.size() != 2 || node.inputs[0] == node.inputs[1]) return kNoValue;
  if (node.inputs[0] == v) return node.inputs[1];
  return node.inputs[1] == v ? node.inputs[0] : kNoValue;
}

std::optional<std::vector<int64_t>> reduce_axes(const Graph& graph, const Node& node) {
  if (node.input(1) != kNoValue) return int_constant(graph, node.inputs[1]);
  if (node.attrs.has("axes")) return node.attrs.get_ints("axes");
  return std::nullopt;
}

bool reduces_last_axis(const Graph& graph, const Node& node) {
  const auto axes = reduce_axes(graph, node);
  if (!axes || axes->size() != 1 || node.attrs.get_int("keepdims", 1) != 1) return false;
  if ((*axes)[0] == -1) return true;
  const auto& shape = graph.value(node.inputs[0]).shape;
  return shape && (*axes)[0] == shape->rank() - 1;
}

NodeId take_over(Graph& graph, ValueId v, std::string_view domain, std::string_view op, int version,
                 std::vector<ValueId> inputs) {
  const NodeId old = graph.value(v).producer;
  const auto& outputs = graph.node(old).outputs;
  const auto index = static_cast<size_t>(std::find(outputs.begin(), outputs.end(), v) - outputs.begin());
  const NodeId made = graph.add_node_with_outputs(std::string(domain), std::string(op), version, std::move(inputs), {});
  graph.node(made).name = graph.node(old).name;
  graph.node(made).def = find_op(domain, op, version);
  graph.move_output(old, index, made, 0);
  remove_if_unused(graph, old);
  return made;
}

Result<ValueId> add_slice(Graph& graph, ValueId x, int axis, int64_t begin, int64_t end, const std::string& name) {
  std::vector<ValueId> inputs = {x};
  for (const int64_t value : {begin, end, int64_t{axis}}) {
    SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(DType::kS64, Shape{1}));
    tensor.mutable_view().as<int64_t>()[0] = value;
    inputs.push_back(graph.add_constant(graph.unique_name(name + "/bound"), std::move(tensor)));
  }
  const NodeId n = graph.add_node("", "Slice", 13, std::move(inputs), {graph.unique_name(name)});
  graph.node(n).name = name;
  graph.node(n).def = find_op("", "Slice", 13);
  const ValueId cut = graph.node(n).outputs[0];
  graph.value(cut).dtype = graph.value(x).dtype;
  graph.value(cut).shape = graph.value(x).shape;
  (*graph.value(cut).shape)[axis] = end - begin;
  return cut;
}

void remove_if_unused(Graph& graph, NodeId n) {
  std::vector<NodeId> pending = {n};
  while (!pending.empty()) {
    const NodeId at = pending.back();
    pending.pop_back();
    const Node& node = graph.node(at);
    if (node.dead) continue;
    const bool used = std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) {
      return v != kNoValue && (!graph.value(v).users.empty() || graph.is_output(v));
    });
    if (used) continue;
    for (ValueId v : node.inputs) {
      if (v != kNoValue && graph.value(v).producer != kNoNode) pending.push_back(graph.value(v).producer);
    }
    graph.remove_node(at);
  }
}

}  // namespace sprun::graph
