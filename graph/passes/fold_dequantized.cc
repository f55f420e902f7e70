// Quantised constants that no integer kernel took: a table that Gather reads is dequantised after the Gather (only the
// rows used), every other one now, once, instead of at each run.
#include "graph/ir/pattern.h"
#include "graph/ops/evaluate.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

bool is_dequantized_constant(const Graph& graph, const Node& node) {
  if (!node.is("DequantizeLinear") || node.outputs.empty()) return false;
  for (ValueId v : node.inputs) {
    if (v != kNoValue && !graph.constant(v)) return false;
  }
  return true;
}

// Gather(DequantizeLinear(table)) -> DequantizeLinear(Gather(table)), for one scale per table.
bool swap_with_gather(Graph& graph, NodeId n) {
  const NodeId gather = only_user(graph, graph.node(n).outputs[0]);
  if (gather == kNoNode || !graph.node(gather).is("Gather") || graph.node(gather).inputs[0] != graph.node(n).outputs[0]) {
    return false;
  }
  if (graph.constant(graph.node(n).inputs[1])->num_elements() != 1) return false;
  const Node dequantize = graph.node(n), old = graph.node(gather);
  const NodeId codes = graph.add_node("", "Gather", old.version, {dequantize.inputs[0], old.inputs[1]},
                                      {old.name + "/codes"});
  graph.node(codes).name = old.name;
  graph.node(codes).attrs = old.attrs;
  graph.node(codes).def = old.def;
  std::vector<ValueId> inputs = dequantize.inputs;
  inputs[0] = graph.node(codes).outputs[0];
  const NodeId made = take_over(graph, old.outputs[0], "", "DequantizeLinear", dequantize.version, inputs);
  graph.node(made).attrs = dequantize.attrs;
  return true;
}

Status fold(Graph& graph, NodeId n, PassContext& ctx) {
  const Node& node = graph.node(n);
  std::vector<Tensor> aligned;
  std::vector<ConstTensorView> inputs;
  for (ValueId v : node.inputs) {
    inputs.push_back(v == kNoValue ? ConstTensorView{} : graph.constant(v)->view());
    if (v == kNoValue || graph.constant(v)->is_aligned()) continue;
    SPRUN_ASSIGN(Tensor copy, Tensor::copy_of(inputs.back()));
    inputs.back() = copy.view();
    aligned.push_back(std::move(copy));
  }
  SPRUN_ASSIGN(std::vector<Tensor> results, evaluate(node, inputs, {.pool = ctx.pool}));
  graph.make_constant(node.outputs[0], std::move(results[0]));
  graph.remove_node(n);
  return {};
}

}  // namespace

Result<int> pass_fold_dequantized(Graph& graph, PassContext& ctx) {
  int rewrites = 0;
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    const Node& node = graph.node(n);
    if (node.dead || !is_dequantized_constant(graph, node)) continue;
    if (!swap_with_gather(graph, n)) SPRUN_TRY(fold(graph, n, ctx));
    ++rewrites;
  }
  return rewrites;
}

}  // namespace sprun::graph
