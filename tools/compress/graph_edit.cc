#include "tools/compress/graph_edit.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "graph/ops/op.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

Result<ValueId> with_constant_size(Graph& graph, ValueId v, int64_t index, int64_t before, int64_t after) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::copy_of(graph.constant(v)->view()));
  if (tensor.dtype() != DType::kS64 || index >= tensor.num_elements())
    return Status(Code::kBadModel, "'" + graph.value(v).name + "' is not a list of sizes");
  auto& element = static_cast<int64_t*>(tensor.mutable_view().data)[index];
  if (element <= 0 || (element == 1 && before != 1)) return v;
  if (element != before) {
    return Status(Code::kBadModel, "'" + graph.value(v).name + "' has " + std::to_string(element) + " where " +
                                       std::to_string(before) + " was expected");
  }
  element = after;
  return graph.add_constant(graph.unique_name(graph.value(v).name), std::move(tensor));
}

// A copy of the node that makes v, with another input.
ValueId copy_with_input(Graph& graph, ValueId v, size_t slot, ValueId input) {
  const Node node = graph.node(graph.value(v).producer);
  std::vector<ValueId> inputs = node.inputs;
  inputs[slot] = input;
  const std::string name = graph.unique_name(graph.value(v).name);
  const NodeId made = graph.add_node(node.domain, node.op_type, node.version, std::move(inputs), {name});
  graph.node(made).name = name;
  graph.node(made).attrs = node.attrs;
  graph.node(made).def = node.def;
  return graph.node(made).outputs[0];
}

}  // namespace

Result<Tensor> take(const Tensor& t, int axis, std::span<const int64_t> indices) {
  const Shape& shape = t.shape();
  std::vector<int64_t> dims(shape.dims().begin(), shape.dims().end());
  dims[static_cast<size_t>(axis)] = static_cast<int64_t>(indices.size());
  SPRUN_ASSIGN(const Shape wanted, Shape::checked(dims));
  SPRUN_ASSIGN(Tensor taken, Tensor::allocate(t.dtype(), wanted));
  const int64_t outer = shape.num_elements(0, axis), length = shape[axis];
  const auto piece = static_cast<size_t>(shape.num_elements(axis + 1, shape.rank()) * dtype_size(t.dtype()));
  const auto* from = static_cast<const char*>(t.data());
  auto* to = static_cast<char*>(taken.mutable_view().data);
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i : indices) {
      std::memcpy(to, from + static_cast<size_t>(o * length + i) * piece, piece);
      to += piece;
    }
  }
  return taken;
}

void replace_constant_input(Graph& graph, NodeId n, size_t slot, Tensor tensor) {
  const ValueId v = graph.node(n).input(slot);
  if (graph.has_one_use(v)) return graph.make_constant(v, std::move(tensor));
  graph.set_input(n, slot, graph.add_constant(graph.unique_name(graph.value(v).name), std::move(tensor)));
}

Result<ValueId> with_size(Graph& graph, const ValueShapes& shapes, ValueId v, int64_t index, int64_t before,
                          int64_t after) {
  if (graph.constant(v) != nullptr) return with_constant_size(graph, v, index, before, after);
  const NodeId producer = graph.value(v).producer;
  if (producer == kNoNode) return v;
  const Node& node = graph.node(producer);
  size_t slot = 0;
  if (node.is("Concat")) {
    for (; slot < node.inputs.size(); ++slot) {
      const Shape* part = shapes.of(node.inputs[slot]);
      if (part == nullptr) return Status(Code::kBadModel, "sizes of '" + graph.value(v).name + "' are not known");
      if (index < part->num_elements()) break;
      index -= part->num_elements();
    }
    if (slot == node.inputs.size()) return Status(Code::kInternal, "a list of sizes is too short");
  } else if (node.is("Where")) {
    slot = 2;  // Where(sizes == -1, ones, sizes): how expand() is exported
  } else {
    constexpr std::array kKeep = {"Unsqueeze", "Squeeze", "Reshape", "Identity", "Cast"};
    if (std::none_of(kKeep.begin(), kKeep.end(), [&](const char* op) { return node.is(op); })) return v;
  }
  const ValueId old = node.inputs[slot];
  SPRUN_ASSIGN(const ValueId changed, with_size(graph, shapes, old, index, before, after));
  return changed == old ? v : copy_with_input(graph, v, slot, changed);
}

Graph without_inputs(const Graph& graph, const std::set<ValueId>& gone) {
  Graph made;
  made.name = graph.name;
  for (ValueId v = 0; v < graph.num_values(); ++v) {
    const graph::Value& from = graph.value(v);
    graph::Value& to = made.value(made.add_value(from.name));
    to.dtype = from.dtype;
    to.shape = from.shape;
    to.declared = from.declared;
    to.constant = from.constant;
  }
  for (ValueId v : graph.inputs()) {
    if (!gone.contains(v)) made.add_existing_input(v);
  }
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    const Node& from = graph.node(n);
    if (from.dead) continue;
    Node& to = made.node(
        made.add_node_with_outputs(from.domain, from.op_type, from.version, from.inputs, from.outputs));
    to.name = from.name;
    to.attrs = from.attrs;
    to.def = from.def;
  }
  made.set_outputs({graph.outputs().begin(), graph.outputs().end()});
  return made;
}

Status remove_unused(Graph& graph) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const auto& outputs = graph.node(*it).outputs;
    const bool used = std::any_of(outputs.begin(), outputs.end(), [&](ValueId v) {
      return v != kNoValue && (!graph.value(v).users.empty() || graph.is_output(v));
    });
    if (!used) graph.remove_node(*it);
  }
  return {};
}

ValueId add_simple_node(Graph& graph, NodeId like, const std::string& op, std::vector<ValueId> inputs,
                        const std::string& name) {
  int version = graph.node(like).version;
  if (!graph.node(like).domain.empty()) {  // opsets of other domains say nothing: take any node of ai.onnx
    for (NodeId n = 0; n < graph.num_nodes(); ++n) {
      if (!graph.node(n).dead && graph.node(n).domain.empty()) version = graph.node(n).version;
    }
  }
  const std::string unique = graph.unique_name(name);
  const NodeId made = graph.add_node("", op, version, std::move(inputs), {unique});
  graph.node(made).name = unique;
  graph.node(made).def = graph::find_op("", op, version);
  return graph.node(made).outputs[0];
}

}  // namespace sprun::compress
