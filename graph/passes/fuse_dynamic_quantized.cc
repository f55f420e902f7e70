// Dynamic quantisation as onnxruntime's tools write it becomes one sprun.LinearInt8:
//   q, s, z = DynamicQuantizeLinear(x);  y = Cast(MatMulInteger(q, W, z, wz)) * (s * ws)
// The scales may be multiplied in either order. What follows (bias, activation) is taken in by fuse_linear_epilogue.
#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

bool is_byte_matrix(const Tensor* tensor) {
  return tensor && tensor->shape().rank() == 2 && (tensor->dtype() == DType::kS8 || tensor->dtype() == DType::kU8);
}

bool is_one_or(const Tensor* tensor, int64_t n) {
  return tensor && (tensor->num_elements() == 1 || (tensor->shape().rank() == 1 && tensor->num_elements() == n));
}

struct Match {
  ValueId x, weight, weight_scale, weight_zero;
};

// Matches at the Mul that applies the scales.
std::optional<Match> match(const Graph& graph, const Node& mul, PassContext& ctx) {
  ValueId scales = kNoValue;
  const ValueId cast_value =
      pick_input(mul, [&](ValueId v) { return producer_is(graph, v, "Cast") != nullptr; }, &scales);
  const Node* cast = producer_is(graph, cast_value, "Cast");
  const Node* product = cast ? producer_is(graph, cast->input(0), "MatMulInteger") : nullptr;
  if (product == nullptr) return std::nullopt;
  const Node* quantize = producer_is(graph, product->input(0), "DynamicQuantizeLinear");
  const Tensor* weight = graph.constant(product->input(1));
  const Node* scale_product = producer_is(graph, scales, "Mul");
  if (quantize == nullptr || product->input(2) != quantize->output(2) || !is_byte_matrix(weight) || !scale_product) {
    ctx.note("fuse_dynamic_quantized: MatMulInteger '" + product->name + "' is not fed by DynamicQuantizeLinear and a " +
             "constant weight, or its scales are not a product");
    return std::nullopt;
  }
  const int64_t n = weight->shape()[1];
  const ValueId weight_scale = other_input(*scale_product, quantize->output(1));
  const ValueId weight_zero = product->input(3);
  const bool fits = is_one_or(graph.constant(weight_scale), n) &&
                    (weight_zero == kNoValue || is_one_or(graph.constant(weight_zero), n));
  if (!fits) return std::nullopt;
  return Match{quantize->inputs[0], product->inputs[1], weight_scale, weight_zero};
}

}  // namespace

Result<int> pass_fuse_dynamic_quantized(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    if (graph.node(n).dead || !graph.node(n).is("Mul")) continue;
    const auto found = match(graph, graph.node(n), ctx);
    if (!found) continue;
    const NodeId made = take_over(graph, graph.node(n).outputs[0], "sprun", "LinearInt8", 1,
                                  {found->x, found->weight, found->weight_scale, found->weight_zero});
    graph.node(made).attrs.set("x_quant", std::string("dynamic_tensor"));
    ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
