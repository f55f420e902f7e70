// A Transpose that moves only axes of size 1 changes no byte: it becomes a Reshape, which costs nothing. That is every
// [1, tokens, heads, size] -> [1, heads, tokens, size] of a single token. After the passes that look for Transposes.
#include <string>

#include "graph/ir/pattern.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

// Do the axes of more than one element keep their order?
bool moves_nothing(const Node& node, const Shape& in) {
  const std::vector<int64_t> perm = node.attrs.get_ints("perm");
  if (static_cast<int>(perm.size()) != in.rank()) return false;
  int64_t last = -1;
  for (int64_t axis : perm) {
    if (axis < 0 || axis >= in.rank()) return false;
    if (in[static_cast<int>(axis)] == 1) continue;
    if (axis < last) return false;
    last = axis;
  }
  return true;
}

}  // namespace

Result<int> pass_reshape_transposed(Graph& graph, PassContext&) {
  int changed = 0;
  const NodeId count = graph.num_nodes();
  for (NodeId n = 0; n < count; ++n) {
    const Node& node = graph.node(n);
    if (node.dead || !node.is("Transpose")) continue;
    const ValueId x = node.inputs[0], y = node.outputs[0];
    const auto &in = graph.value(x).shape, &out = graph.value(y).shape;
    if (!in || !out || !moves_nothing(node, *in)) continue;
    SPRUN_ASSIGN(Tensor sizes, Tensor::allocate(DType::kS64, Shape{out->rank()}));
    for (int axis = 0; axis < out->rank(); ++axis) sizes.mutable_view().as<int64_t>()[axis] = (*out)[axis];
    const ValueId shape = graph.add_constant(graph.value(y).name + "/shape", std::move(sizes));
    const NodeId made = take_over(graph, y, "", "Reshape", 14, {x, shape});
    graph.node(made).attrs.set("allowzero", int64_t{1});
    ++changed;
  }
  return changed;
}

}  // namespace sprun::graph
