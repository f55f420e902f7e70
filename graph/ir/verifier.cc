#include "graph/ir/verifier.h"

#include <algorithm>

namespace sprun::graph {

namespace {

Status broken(const std::string& text) { return {Code::kInternal, text}; }

Status verify_node(const Graph& graph, NodeId n, std::vector<int>& uses) {
  const Node& node = graph.node(n);
  for (ValueId v : node.inputs) {
    if (v == kNoValue) continue;
    if (v < 0 || v >= graph.num_values()) return broken("node '" + node.name + "' reads a value that does not exist");
    const Value& value = graph.value(v);
    ++uses[static_cast<size_t>(v)];
    if (value.producer == kNoNode && !value.is_input && !value.is_constant()) {
      return broken("node '" + node.name + "' reads '" + value.name + "', which nothing produces");
    }
  }
  for (ValueId v : node.outputs) {
    if (v != kNoValue && graph.value(v).producer != n) {
      return broken("value '" + graph.value(v).name + "' does not know its producer '" + node.name + "'");
    }
  }
  return {};
}

}  // namespace

Status verify(const Graph& graph) {
  std::vector<int> uses(static_cast<size_t>(graph.num_values()), 0);
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    if (!graph.node(n).dead) SPRUN_TRY(verify_node(graph, n, uses));
  }
  for (ValueId v = 0; v < graph.num_values(); ++v) {
    if (static_cast<int>(graph.value(v).users.size()) != uses[static_cast<size_t>(v)]) {
      return broken("use list of value '" + graph.value(v).name + "' is wrong");
    }
  }
  for (ValueId v : graph.outputs()) {
    if (v < 0 || v >= graph.num_values()) return broken("a graph output does not exist");
    const Value& value = graph.value(v);
    if (value.producer == kNoNode && !value.is_input && !value.is_constant()) {
      return broken("graph output '" + value.name + "' is produced by nothing");
    }
  }
  auto order = graph.topological_order();
  return order.ok() ? Status() : order.status();
}

}  // namespace sprun::graph
