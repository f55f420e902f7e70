// Add followed by LayerNormalization or RMSNormalization over the last axis becomes one SkipLayerNormalization
// (com.microsoft): the sum is normalised while it is still in cache, and written once if others need it.
// Plan stage: both summands must have the same shape.
#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

bool is_last_axis(const Node& node, const Shape& shape) {
  const int64_t axis = node.attrs.get_int("axis", -1);
  return axis == -1 || axis == shape.rank() - 1;
}

// The Add whose result the norm reads, if it fits.
const Node* fitting_add(const Graph& graph, const Node& norm) {
  const Node* add = producer_is(graph, norm.input(0), "Add");
  if (add == nullptr || norm.output(1) != kNoValue || norm.output(2) != kNoValue) return nullptr;
  const Value &a = graph.value(add->inputs[0]), &b = graph.value(add->inputs[1]);
  if (!a.shape || !b.shape || *a.shape != *b.shape || a.dtype != DType::kF32 || a.shape->rank() < 2) return nullptr;
  if (a.is_constant() || b.is_constant()) return nullptr;
  return is_last_axis(norm, *a.shape) ? add : nullptr;
}

}  // namespace

Result<int> pass_fuse_skip_layer_norm(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    const Node& norm = graph.node(n);
    const bool rms = !norm.dead && norm.is("RMSNormalization");
    if (norm.dead || !(rms || norm.is("LayerNormalization"))) continue;
    const Node* add = fitting_add(graph, norm);
    if (add == nullptr) continue;
    const NodeId add_id = graph.value(norm.inputs[0]).producer;
    std::vector<ValueId> inputs = {add->inputs[0], add->inputs[1], norm.inputs[1]};
    if (!rms && norm.input(2) != kNoValue) inputs.push_back(norm.inputs[2]);
    const float epsilon = norm.attrs.get_float("epsilon", 1e-5f);
    const bool sum_needed = !graph.has_one_use(norm.inputs[0]);
    const NodeId made = take_over(graph, norm.outputs[0], "com.microsoft",
                                  rms ? "SkipSimplifiedLayerNormalization" : "SkipLayerNormalization", 1, inputs);
    graph.node(made).attrs.set("epsilon", epsilon);
    if (sum_needed) {
      graph.node(made).outputs.resize(4, kNoValue);
      graph.move_output(add_id, 0, made, 3);
      remove_if_unused(graph, add_id);
    }
    ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
