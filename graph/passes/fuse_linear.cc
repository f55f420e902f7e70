// MatMul and Gemm with a constant float32 weight become sprun.Linear, whose weight is packed once per model.
// A Transpose of the constant is read through (the packer takes either order), so that no transposed copy is made, and so
// is a Cast of a float16 or bfloat16 constant, which stays so in memory: this pass runs before constant folding would make
// copies.
#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

struct Weight {
  ValueId value = kNoValue;
  bool trans = false;  // stored [N, K]
};

// v as a constant matrix [K, N] of f32, or of f16 or bf16 cast to f32, possibly through a Transpose.
std::optional<Weight> constant_weight(const Graph& graph, ValueId v) {
  Weight weight{v, false};
  bool cast = false, turned = false;
  for (const Node* node = graph.producer(v); node != nullptr; node = graph.producer(weight.value)) {
    const bool transpose = node->is("Transpose") && node->attrs.get_ints("perm") != std::vector<int64_t>{0, 1};
    const bool to_f32 = node->is("Cast") && node->attrs.get_int("to", 0) == static_cast<int64_t>(DType::kF32);
    if ((!transpose || turned) && (!to_f32 || cast)) break;
    (transpose ? turned : cast) = true;
    weight = {node->inputs[0], turned};
  }
  const Tensor* tensor = graph.constant(weight.value);
  if (tensor == nullptr || tensor->shape().rank() != 2) return std::nullopt;
  const bool half = cast && (tensor->dtype() == DType::kF16 || tensor->dtype() == DType::kBf16);
  return tensor->dtype() == DType::kF32 || half ? std::optional(weight) : std::nullopt;
}

NodeId make_linear(Graph& graph, ValueId out, ValueId x, const Weight& weight, bool trans, PassContext& ctx) {
  const NodeId made = take_over(graph, out, "sprun", "Linear", 1, {x, weight.value});
  graph.node(made).attrs.set("trans_w", int64_t{trans});
  if (ctx.precision != Precision::kF32) graph.node(made).attrs.set("precision", std::string(precision_name(ctx.precision)));
  return made;
}

bool fuse_matmul(Graph& graph, NodeId n, PassContext& ctx) {
  const Node& node = graph.node(n);
  if (graph.constant(node.inputs[0])) return false;
  const auto weight = constant_weight(graph, node.inputs[1]);
  if (!weight) return false;
  make_linear(graph, node.outputs[0], node.inputs[0], *weight, weight->trans, ctx);
  return true;
}

// The bias of a Gemm that fits a linear layer: a constant of N elements along the last axis.
bool fits_bias(const Graph& graph, ValueId v, int64_t n) {
  const Tensor* bias = graph.constant(v);
  if (bias == nullptr || bias->dtype() != DType::kF32 || bias->num_elements() != n || !bias->is_aligned()) return false;
  return bias->shape().rank() >= 1 && bias->shape().back() == n;
}

bool fuse_gemm(Graph& graph, NodeId n, PassContext& ctx) {
  const Node& node = graph.node(n);
  if (graph.constant(node.inputs[0]) || node.attrs.get_int("transA", 0) != 0) return false;
  const auto weight = constant_weight(graph, node.inputs[1]);
  if (!weight) return false;
  const bool trans = weight->trans != (node.attrs.get_int("transB", 0) != 0);
  const ValueId c = node.input(2);
  const int64_t width = graph.constant(weight->value)->shape()[trans ? 0 : 1];
  if (c != kNoValue && (node.attrs.get_float("beta", 1.0f) != 1.0f || !fits_bias(graph, c, width))) {
    ctx.note("fuse_linear: Gemm '" + node.name + "' adds a C that is not a constant of one row");
    return false;
  }
  const float alpha = node.attrs.get_float("alpha", 1.0f);
  const NodeId made = make_linear(graph, node.outputs[0], node.inputs[0], *weight, trans, ctx);
  if (alpha != 1.0f) graph.node(made).attrs.set("alpha", alpha);
  if (c == kNoValue) return true;
  ValueId bias = c;
  if (graph.constant(c)->shape().rank() != 1) {
    bias = graph.add_constant(graph.value(c).name + "/row", graph.constant(c)->reshaped({width}));
  }
  graph.set_input(made, 2, bias);
  return true;
}

}  // namespace

Result<int> pass_fuse_linear(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    if (graph.node(n).dead) continue;
    if (graph.node(n).is("MatMul") && fuse_matmul(graph, n, ctx)) ++fused;
    if (graph.node(n).is("Gemm") && fuse_gemm(graph, n, ctx)) ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
