// QuantizeLinear with one scale moves in front of what only moves elements, so that a linear layer before it can write
// codes and the movement is of bytes:
//   QuantizeLinear(Transpose(x), s, z) -> Transpose(QuantizeLinear(x, s, z))          Reshape, Squeeze, ... alike
// and QuantizeLinear(DequantizeLinear(c, s, z), s, z), as quantisers write around such nodes, is c.
#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"
#include "graph/passes/quantize_params.h"

namespace sprun::graph {

namespace {

bool only_moves(const Node& node) {
  for (const char* op : {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"}) {
    if (node.is(op)) return true;
  }
  return false;
}

// A value of its own for node n's output, of the shape of `like`.
ValueId describe_output(Graph& graph, NodeId n, DType dtype, ValueId like) {
  const ValueId v = graph.node(n).outputs[0];
  const std::optional<Shape> shape = graph.value(like).shape;
  graph.value(v).dtype = dtype;
  graph.value(v).shape = shape;
  return v;
}

bool hoist(Graph& graph, NodeId n) {
  const Node quantize = graph.node(n);
  const Node* before = graph.producer(quantize.inputs[0]);
  if (before == nullptr || !only_moves(*before) || only_user(graph, quantize.inputs[0]) != n) return false;
  const Node move = *before;
  std::vector<ValueId> inputs = quantize.inputs;
  inputs[0] = move.inputs[0];
  const NodeId codes = graph.add_node("", "QuantizeLinear", quantize.version, inputs, {quantize.name + "/codes"});
  graph.node(codes).name = quantize.name;
  graph.node(codes).attrs = quantize.attrs;
  graph.node(codes).def = quantize.def;
  inputs = move.inputs;
  inputs[0] = describe_output(graph, codes, quantize_params(graph, quantize)->dtype, move.inputs[0]);
  const NodeId moved = take_over(graph, quantize.outputs[0], "", move.op_type, move.version, inputs);
  graph.node(moved).name = move.name;
  graph.node(moved).attrs = move.attrs;
  return true;
}

bool cancel(Graph& graph, NodeId n) {
  const Node& quantize = graph.node(n);
  const Node* dequantize = producer_is(graph, quantize.inputs[0], "DequantizeLinear");
  const auto from = dequantize ? quantize_params(graph, *dequantize) : std::nullopt;
  const auto to = quantize_params(graph, quantize);
  if (!from || !same_codes(graph, *from, *to) || graph.is_output(quantize.outputs[0])) return false;
  graph.replace_uses(quantize.outputs[0], dequantize->inputs[0]);
  remove_if_unused(graph, n);
  return true;
}

}  // namespace

Result<int> pass_hoist_quantize(Graph& graph, PassContext&) {
  int rewrites = 0;
  // New nodes are appended, so a QuantizeLinear that moved is visited again, further up.
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    const Node& node = graph.node(n);
    if (node.dead || !node.is("QuantizeLinear") || !quantize_params(graph, node)) continue;
    if (hoist(graph, n) || cancel(graph, n)) ++rewrites;
  }
  return rewrites;
}

}  // namespace sprun::graph
