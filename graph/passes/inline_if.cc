// An If with a constant condition becomes the nodes of the branch taken.
#include <unordered_map>

#include "graph/ops/op.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

// Copies the branch into the outer graph. Branch inputs are the captures, in the order of the node's inputs 1...
void splice(Graph& graph, NodeId if_node, const Graph& branch) {
  std::unordered_map<ValueId, ValueId> outer;
  const std::vector<ValueId> captures(graph.node(if_node).inputs.begin() + 1, graph.node(if_node).inputs.end());
  for (size_t i = 0; i < branch.inputs().size() && i < captures.size(); ++i) outer[branch.inputs()[i]] = captures[i];
  const std::string prefix = graph.node(if_node).name + "/";
  const auto map = [&](ValueId v) {
    if (v == kNoValue) return kNoValue;
    if (auto it = outer.find(v); it != outer.end()) return it->second;
    const Value& value = branch.value(v);
    const ValueId made = value.is_constant() ? graph.add_constant(prefix + value.name, value.constant)
                                             : graph.add_value(prefix + value.name);
    outer[v] = made;
    return made;
  };
  for (NodeId n = 0; n < branch.num_nodes(); ++n) {
    const Node& node = branch.node(n);
    if (node.dead) continue;
    std::vector<ValueId> inputs, outputs;
    for (ValueId v : node.inputs) inputs.push_back(map(v));
    for (ValueId v : node.outputs) outputs.push_back(map(v));
    const NodeId copy = graph.add_node_with_outputs(node.domain, node.op_type, node.version, inputs, outputs);
    graph.node(copy).name = prefix + node.name;
    graph.node(copy).attrs = node.attrs;
    graph.node(copy).def = node.def;
  }
  const std::vector<ValueId> results = graph.node(if_node).outputs;
  for (size_t i = 0; i < results.size() && i < branch.outputs().size(); ++i) {
    if (results[i] == kNoValue) continue;
    graph.replace_uses(results[i], map(branch.outputs()[i]));
  }
  graph.remove_node(if_node);
}

}  // namespace

Result<int> pass_inline_if(Graph& graph, PassContext&) {
  int inlined = 0;
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    const Node& node = graph.node(n);
    if (node.dead || !node.is("If")) continue;
    const Tensor* condition = graph.constant(node.input(0));
    if (condition == nullptr || condition->dtype() != DType::kBool || condition->num_elements() != 1) continue;
    const auto branch = node.attrs.get_graph(*condition->as<uint8_t>() ? "then_branch" : "else_branch");
    if (branch == nullptr || branch->inputs().size() + 1 != node.inputs.size()) continue;
    splice(graph, n, *branch);
    ++inlined;
  }
  return inlined;
}

}  // namespace sprun::graph
