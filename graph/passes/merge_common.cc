// Common subexpressions: nodes with the same op, attributes and inputs become one. Small constants with equal contents
// count as the same input.
#include <string>
#include <unordered_map>

#include "graph/ops/op.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

constexpr int64_t kCompareBytes = 256;

std::string input_key(const Graph& graph, ValueId v) {
  if (v == kNoValue) return "-";
  const Tensor* constant = graph.constant(v);
  if (constant && constant->size_bytes() <= kCompareBytes && constant->is_aligned()) return to_string(Attr(*constant));
  return std::to_string(v);
}

std::string node_key(const Graph& graph, const Node& node) {
  std::string key = node.domain + ":" + node.op_type + ":" + std::to_string(node.version) + ":" +
                    std::to_string(node.outputs.size());
  for (ValueId v : node.inputs) key += "," + input_key(graph, v);
  for (const auto& [name, attr] : node.attrs.items()) key += ";" + name + "=" + to_string(attr);
  return key;
}

bool may_merge(const Node& node) { return node.def != nullptr && !(node.def->flags & (kRandom | kSubgraphs)); }

// False if `other` lacks an output that `node` has.
bool covers(const Node& other, const Node& node) {
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] != kNoValue && other.outputs[i] == kNoValue) return false;
  }
  return true;
}

}  // namespace

Result<int> pass_merge_common(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  std::unordered_map<std::string, NodeId> seen;
  int merged = 0;
  for (NodeId n : order) {
    const Node& node = graph.node(n);
    if (!may_merge(node)) continue;
    const auto [it, fresh] = seen.emplace(node_key(graph, node), n);
    if (fresh || !covers(graph.node(it->second), node)) continue;
    bool has_output = false;  // graph outputs keep their own names: leave their producers alone
    for (ValueId v : node.outputs) has_output |= v != kNoValue && graph.is_output(v);
    if (has_output) continue;
    const std::vector<ValueId> from = node.outputs, to = graph.node(it->second).outputs;
    for (size_t i = 0; i < from.size(); ++i) {
      if (from[i] != kNoValue) graph.replace_uses(from[i], to[i]);
    }
    graph.remove_node(n);
    ++merged;
  }
  return merged;
}

}  // namespace sprun::graph
