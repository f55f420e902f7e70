// Removes nodes whose outputs nobody uses, and the memory of constants likewise: masks of long contexts are large.
#include <algorithm>

#include "graph/passes/pass.h"

namespace sprun::graph {

Result<int> pass_remove_dead(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int removed = 0;
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const Node& node = graph.node(*it);
    const bool used = std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) {
      return v != kNoValue && (!graph.value(v).users.empty() || graph.is_output(v));
    });
    if (used) continue;
    graph.remove_node(*it);
    ++removed;
  }
  for (ValueId v = 0; v < graph.num_values(); ++v) {
    Value& value = graph.value(v);
    if (value.is_constant() && value.users.empty() && !graph.is_output(v)) value.constant = Tensor();
  }
  return removed;
}

}  // namespace sprun::graph
