// Removes nodes that return their input: Identity, Dropout when not training, Cast to the same type, Reshape and Expand
// to the same shape, Transpose that keeps the order, Slice of everything, Concat of one input.
#include <algorithm>
#include <numeric>

#include "graph/ir/pattern.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

bool same_type(const Graph& graph, ValueId a, ValueId b) {
  const Value &va = graph.value(a), &vb = graph.value(b);
  return va.dtype != DType::kUndefined && va.dtype == vb.dtype && va.shape && vb.shape && *va.shape == *vb.shape;
}

bool keeps_order(const Node& node, const std::optional<Shape>& shape) {
  std::vector<int64_t> perm = node.attrs.get_ints("perm");
  if (perm.empty()) return shape && shape->rank() <= 1;
  return std::is_sorted(perm.begin(), perm.end());
}

// Does output 0 of the node equal its input 0?
bool is_identity(const Graph& graph, const Node& node) {
  if (!node.domain.empty() || node.outputs.empty() || node.input(0) == kNoValue || node.outputs[0] == kNoValue) {
    return false;
  }
  const ValueId in = node.inputs[0], out = node.outputs[0];
  const std::string& op = node.op_type;
  if (op == "Identity") return true;
  if (op == "Dropout") {
    const Tensor* training = graph.constant(node.input(2));
    const bool off = node.input(2) == kNoValue || (training && training->num_elements() == 1 && !*training->as<uint8_t>());
    return off && node.output(1) == kNoValue;
  }
  if (op == "Cast") {
    return graph.value(in).dtype != DType::kUndefined &&
           node.attrs.get_int("to", 0) == static_cast<int64_t>(graph.value(in).dtype);
  }
  if (op == "Transpose") return keeps_order(node, graph.value(in).shape);
  if (op == "Concat") return node.inputs.size() == 1;
  // With positive steps, a result of the same shape is the whole tensor.
  if (op == "Slice") {
    const auto steps = int_constant(graph, node.input(4));
    const bool forward = node.input(4) == kNoValue ||
                         (steps && std::all_of(steps->begin(), steps->end(), [](int64_t s) { return s > 0; }));
    return forward && same_type(graph, in, out);
  }
  return (op == "Reshape" || op == "Expand" || op == "Unsqueeze" || op == "Squeeze" || op == "Flatten") &&
         same_type(graph, in, out);
}

}  // namespace

Result<int> pass_remove_identities(Graph& graph, PassContext&) {
  int removed = 0;
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    const Node& node = graph.node(n);
    if (node.dead || !is_identity(graph, node)) continue;
    const ValueId in = node.inputs[0], out = node.outputs[0];
    // A graph output keeps its own value; replacing it would change nothing but the place of the copy.
    if (graph.is_output(out)) continue;
    graph.replace_uses(out, in);
    graph.remove_node(n);
    ++removed;
  }
  return removed;
}

}  // namespace sprun::graph
