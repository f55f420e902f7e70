// Exact top-k along the last axis becomes one sprun.TopKSelect:
//   scattered   ScatterElements(zeros, indices, values) of TopK(x); AbsTopK: indices of TopK(|x|), values gathered from x
//   compared    x where x >= the k-th largest, else 0, the k-th taken from TopK by ReduceMin, Gather or Slice
// A rectifier of the values stays behind it. Scattering keeps the lower index of equal values, comparing keeps them all.
#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {

namespace {

struct Selected {
  ValueId x = kNoValue;
  int64_t k = 0;
  bool absolute = false, ties = false, relu = false;
};

// TopK of the largest along the last axis with a constant k, that makes v as output `output`; nullptr otherwise.
const Node* top_k(const Graph& graph, ValueId v, size_t output, int64_t* k) {
  const Node* node = producer_is(graph, v, "TopK");
  if (node == nullptr || node->output(output) != v || node->attrs.get_int("largest", 1) == 0) return nullptr;
  const int64_t axis = node->attrs.get_int("axis", -1);
  const auto& shape = graph.value(node->inputs[0]).shape;
  if (axis != -1 && !(shape && axis == shape->rank() - 1)) return nullptr;
  const auto count = node->input(1) != kNoValue ? int_constant(graph, node->inputs[1])
                                                : std::optional(std::vector<int64_t>{node->attrs.get_int("k", -1)});
  if (!count || count->size() != 1 || (*count)[0] < 0) return nullptr;
  *k = (*count)[0];
  return node;
}

bool is_last_axis(const Graph& graph, const Node& node, ValueId of) {
  const int64_t axis = node.attrs.get_int("axis", 0);
  const auto& shape = graph.value(of).shape;
  return axis == -1 || (shape && axis == shape->rank() - 1);
}

std::optional<Selected> match_scattered(const Graph& graph, const Node& scatter) {
  if (!scatter.is("ScatterElements") || scatter.attrs.get_string("reduction", "none") != "none") return std::nullopt;
  if (!is_zero(graph, scatter.inputs[0]) || !is_last_axis(graph, scatter, scatter.outputs[0])) return std::nullopt;
  Selected found;
  const Node* top = top_k(graph, scatter.inputs[1], 1, &found.k);
  if (top == nullptr) return std::nullopt;
  const Node* abs = producer_is(graph, top->inputs[0], "Abs");
  ValueId values = scatter.inputs[2];
  if (const ValueId inner = relu_input(graph, values); inner != kNoValue) {
    found.relu = true;
    values = inner;
  }
  if (values == top->outputs[0] && abs == nullptr) {
    found.x = top->inputs[0];
    return found;
  }
  const Node* gather = producer_is(graph, values, "GatherElements");
  if (!gather || gather->inputs[1] != scatter.inputs[1] || !is_last_axis(graph, *gather, values)) return std::nullopt;
  found.x = gather->inputs[0];
  found.absolute = abs && abs->inputs[0] == found.x;
  if (!found.absolute && top->inputs[0] != found.x) return std::nullopt;
  // The zeros must have the shape of x.
  const auto &zeros = graph.value(scatter.inputs[0]).shape, &shape = graph.value(found.x).shape;
  return graph.constant(scatter.inputs[0]) && (!zeros || !shape || *zeros != *shape) ? std::nullopt : std::optional(found);
}

// The TopK whose smallest value v is, last axis kept.
const Node* kth_value(const Graph& graph, ValueId v, int64_t* k) {
  const Node* node = graph.producer(v);
  if (node == nullptr || node->inputs.empty()) return nullptr;
  const Node* top = top_k(graph, node->inputs[0], 0, k);
  if (top == nullptr || top->attrs.get_int("sorted", 1) == 0) {
    return top && node->is("ReduceMin") && reduces_last_axis(graph, *node) ? top : nullptr;
  }
  if (node->is("ReduceMin")) return reduces_last_axis(graph, *node) ? top : nullptr;
  const auto index = [&](size_t input) {
    const auto values = int_constant(graph, node->input(input));
    return values && values->size() == 1 ? std::optional((*values)[0]) : std::nullopt;
  };
  if (node->is("Gather")) {  // with indices of one axis, so that the axis stays
    const bool kept = graph.constant(node->inputs[1]) && graph.constant(node->inputs[1])->shape().rank() == 1;
    const auto at = index(1);
    return kept && at && is_last_axis(graph, *node, node->inputs[0]) && (*at == -1 || *at == *k - 1) ? top : nullptr;
  }
  if (!node->is("Slice")) return nullptr;
  const auto start = index(1), end = index(2), axis = index(3);
  const auto& shape = graph.value(node->inputs[0]).shape;
  const bool last = axis && (*axis == -1 || (shape && *axis == shape->rank() - 1));
  return last && start && end && (*start == -1 || *start == *k - 1) && *end >= *k ? top : nullptr;
}

std::optional<Selected> match_compared(const Graph& graph, ValueId y) {
  const auto kept = kept_values(graph, y, false);
  if (!kept || !kept->when.inclusive) return std::nullopt;
  Selected found = {.x = kept->y, .ties = true};
  const Node* top = kth_value(graph, kept->when.t, &found.k);
  if (top == nullptr || found.k < 1 || top->inputs[0] != kept->when.x) return std::nullopt;
  if (kept->when.x == found.x) return found;
  const Node* abs = producer_is(graph, kept->when.x, "Abs");
  found.absolute = abs && abs->inputs[0] == found.x;
  return found.absolute ? std::optional(found) : std::nullopt;
}

void replace(Graph& graph, ValueId y, const Selected& selected) {
  ValueId target = y;
  if (selected.relu) {
    const NodeId made = graph.add_node("sprun", "TopKSelect", 1, {selected.x}, {graph.unique_name(graph.value(y).name + "/top_k")});
    graph.node(made).def = find_op("sprun", "TopKSelect", 1);
    target = graph.node(made).outputs[0];
    graph.value(target).dtype = graph.value(y).dtype;
    graph.value(target).shape = graph.value(y).shape;
    take_over(graph, y, "", "Relu", 14, {target});
  } else {
    take_over(graph, y, "sprun", "TopKSelect", 1, {selected.x});
  }
  Node* node = &graph.node(graph.value(target).producer);
  node->attrs.set("k", selected.k);
  node->attrs.set("absolute", int64_t{selected.absolute});
  node->attrs.set("ties", int64_t{selected.ties});
}

}  // namespace

Result<int> pass_fuse_top_k(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    if (graph.node(n).dead || graph.node(n).outputs.empty()) continue;
    const ValueId y = graph.node(n).outputs[0];
    auto found = match_scattered(graph, graph.node(n));
    if (!found && y != kNoValue) found = match_compared(graph, y);
    if (!found) continue;
    replace(graph, y, *found);
    ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
