// Thresholds that make exact zeros, with a constant limit, become one sprun.Threshold (Relu, where the limit is 0):
//   FATReLU        Where(x >= t, x, 0); Mul(x, Cast(x > t)); ThresholdedRelu
//   CATS, CHESS    Where(|x| < t, 0, x), t one value or one for each column
//   TEAL, NNCF     Where(|x| <= t, 0, x); Shrink, with a bias the soft threshold
// The limit must be compared with the tensor that is kept, or with its absolute value.
#include <cmath>

#include "graph/ir/pattern.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {

namespace {

ValueId scalar_limit(Graph& graph, const std::string& base, float value) {
  auto tensor = Tensor::allocate(DType::kF32, {1});
  if (!tensor.ok()) return kNoValue;
  *tensor->mutable_view().as<float>() = value;
  return graph.add_constant(graph.unique_name(base + "/limit"), std::move(*tensor));
}

// The constant t as one value or one row; kNoValue if it is neither, or not of a type that the op reads.
ValueId row_limit(Graph& graph, ValueId t) {
  const Tensor& tensor = *graph.constant(t);
  const bool type = is_float(tensor.dtype()) && tensor.dtype() != DType::kF64;
  const int64_t count = tensor.num_elements();
  if (!type || count == 0) return kNoValue;
  if (count != 1 && tensor.shape().back() != count) return kNoValue;
  if (tensor.shape().rank() == 1) return t;
  return graph.add_constant(graph.unique_name(graph.value(t).name + "/row"), tensor.reshaped({count}));
}

struct Limit {
  ValueId x = kNoValue, t = kNoValue;
  bool absolute = false, inclusive = false;
  float shift = 0;
};

void replace(Graph& graph, ValueId y, const Limit& limit) {
  if (!limit.absolute && limit.shift == 0 && scalar_constant(graph, limit.t) == 0.0) {
    take_over(graph, y, "", "Relu", 14, {limit.x});
    return;
  }
  const NodeId made = take_over(graph, y, "sprun", "Threshold", 1, {limit.x, limit.t});
  AttrMap& attrs = graph.node(made).attrs;
  attrs.set("absolute", int64_t{limit.absolute});
  attrs.set("inclusive", int64_t{limit.inclusive});
  attrs.set("shift", limit.shift);
}

bool fuse_compared(Graph& graph, NodeId n, PassContext& ctx) {
  const ValueId y = graph.node(n).outputs[0];
  const auto kept = kept_values(graph, y, true);
  if (!kept) return false;
  const Node* abs = producer_is(graph, kept->when.x, "Abs");
  Limit limit = {.x = kept->y, .absolute = abs && abs->inputs[0] == kept->y, .inclusive = kept->when.inclusive};
  if (!limit.absolute && kept->when.x != kept->y) {
    note_miss(ctx, graph.node(n), "fuse_threshold", "keeps values of another tensor than the one it compares");
    return false;
  }
  limit.t = row_limit(graph, kept->when.t);
  if (limit.t == kNoValue) return false;
  replace(graph, y, limit);
  return true;
}

bool fuse_node(Graph& graph, NodeId n) {
  const Node& node = graph.node(n);
  const bool shrink = node.is("Shrink");
  if (!shrink && !node.is("ThresholdedRelu")) return false;
  const float at = node.attrs.get_float(shrink ? "lambd" : "alpha", shrink ? 0.5F : 1.0F);
  if (shrink && at < 0) return false;
  const float shift = shrink ? node.attrs.get_float("bias", 0.0F) : 0.0F;
  const Limit limit = {node.inputs[0], scalar_limit(graph, node.name, at), shrink, false, shift};
  if (limit.t == kNoValue) return false;
  replace(graph, node.outputs[0], limit);
  return true;
}

}  // namespace

Result<int> pass_fuse_threshold(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    if (!graph.node(n).dead && (fuse_compared(graph, n, ctx) || fuse_node(graph, n))) ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
