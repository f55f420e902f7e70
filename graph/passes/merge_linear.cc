// Linear layers of one kind that read the same value become one node with several weights (Q, K and V; the key and
// value of cross attention): one parallel region, and the input is quantised or read once.
#include <map>
#include <utility>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

constexpr size_t kMaxWeights = 8;

// Layers that can be merged have equal keys: the same input and attributes, and no residual.
std::string merge_key(const Graph& graph, const Node& node) {
  const LinearLayout at = linear_layout(node);
  if (at.n != 1 || node.input(at.residual()) != kNoValue || node.inputs.size() > at.residual() + 1) return "";
  std::string key = std::to_string(node.inputs[0]) + node.op_type;
  // The same kernel takes int8 and uint8, but not two types of floats.
  if (!at.codes) key += dtype_name(graph.value(node.input(at.weight(0))).dtype);
  for (const char* name : {"trans_w", "alpha", "activation", "precision", "x_quant", "block_size"}) {
    const Attr* attr = node.attrs.find(name);
    key += std::string(";") + (attr ? to_string(*attr) : "");
  }
  return key;
}

// Inputs of the merged node: each kind of input for all layers, one after the other.
std::vector<ValueId> merged_inputs(const Graph& graph, const std::vector<NodeId>& layers) {
  const LinearLayout one = linear_layout(graph.node(layers[0]));
  std::vector<ValueId> inputs = {graph.node(layers[0]).inputs[0]};
  for (size_t kind = 1; kind < one.residual(); ++kind) {
    for (NodeId layer : layers) inputs.push_back(graph.node(layer).input(kind));
  }
  return inputs;
}

void merge(Graph& graph, const std::vector<NodeId>& layers) {
  const Node& first = graph.node(layers[0]);
  const AttrMap attrs = first.attrs;
  const std::string op = first.op_type, name = first.name;
  const NodeId made = graph.add_node_with_outputs("sprun", op, 1, merged_inputs(graph, layers), {});
  graph.node(made).def = find_op("sprun", op, 1);
  graph.node(made).name = name;
  graph.node(made).attrs = attrs;
  graph.node(made).attrs.set("num_weights", static_cast<int64_t>(layers.size()));
  graph.node(made).attrs.set("split", int64_t{1});
  for (size_t i = 0; i < layers.size(); ++i) {
    graph.move_output(layers[i], 0, made, i);
    graph.remove_node(layers[i]);
  }
}

}  // namespace

Result<int> pass_merge_linear(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  std::map<std::string, std::vector<NodeId>> groups;
  for (NodeId n : order) {
    if (!is_linear(graph.node(n))) continue;
    if (const std::string key = merge_key(graph, graph.node(n)); !key.empty()) groups[key].push_back(n);
  }
  int merged = 0;
  for (const auto& [key, layers] : groups) {
    if (layers.size() < 2 || layers.size() > kMaxWeights) continue;
    merge(graph, layers);
    ++merged;
  }
  return merged;
}

}  // namespace sprun::graph
