// Statically quantised layers in Q/DQ form become one sprun.LinearInt8 that reads 8-bit codes:
//   y = MatMul(DequantizeLinear(xq, sx, zx), DequantizeLinear(Wq, sw, zw))        and Gemm alike, with its constant C
// sw is per tensor or per output channel; sx and zx are constants of one element. A QuantizeLinear that follows stays:
// the bias and activation before it are taken in by fuse_linear_epilogue.
// Where only the weight is quantised (then sw may also have blocks of inputs), x stays float: sprun.LinearDequant, or with
// precision int8 a sprun.LinearInt8 that quantises x by rows.
#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"
#include "graph/passes/quantize_params.h"

namespace sprun::graph {

namespace {

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kS8; }

struct Weight {
  ValueId codes = kNoValue, scale = kNoValue, zero = kNoValue;
  bool trans = false;
  int64_t block_size = 0;
};

// v as dequantised constant codes [K, N] (or [N, K] when trans) with a scale per tensor or per output, perhaps transposed
// after dequantising.
std::optional<Weight> quantized_weight(const Graph& graph, ValueId v, bool trans) {
  if (const Node* transpose = producer_is(graph, v, "Transpose")) {
    v = transpose->inputs[0];
    trans = !trans;  // of a matrix: rank 2 is checked below
    const std::vector<int64_t>& perm = transpose->attrs.get_ints("perm");
    if (!perm.empty() && perm != std::vector<int64_t>{1, 0}) return std::nullopt;
  }
  const Node* node = producer_is(graph, v, "DequantizeLinear");
  const Tensor* codes = node ? graph.constant(node->input(0)) : nullptr;
  const Tensor* scale = node ? graph.constant(node->input(1)) : nullptr;
  if (!codes || !scale || !is_byte(codes->dtype()) || codes->shape().rank() != 2) return std::nullopt;
  const Tensor* zero = graph.constant(node->input(2));
  if (scale->dtype() != DType::kF32 || node->attrs.get_int("output_dtype", 0) > 1) return std::nullopt;
  if (node->input(2) != kNoValue && (zero == nullptr || zero->dtype() != codes->dtype())) return std::nullopt;
  const int64_t axis = node->attrs.get_int("axis", 1), block_size = node->attrs.get_int("block_size", 0);
  const int out_axis = trans ? 0 : 1, in_axis = 1 - out_axis;
  const Weight weight = {node->inputs[0], node->inputs[1], node->input(2), trans, block_size};
  if (block_size > 0) {
    Shape fits = codes->shape();
    fits[in_axis] = (fits[in_axis] + block_size - 1) / block_size;
    return (axis == in_axis || axis == in_axis - 2) && scale->shape() == fits ? std::optional(weight) : std::nullopt;
  }
  const bool per_output = scale->shape() == Shape{codes->shape()[out_axis]} && (axis == out_axis || axis == out_axis - 2);
  return scale->num_elements() == 1 || per_output ? std::optional(weight) : std::nullopt;
}

// The DequantizeLinear of the activations, if its scale and zero point are constants of one element.
const Node* quantized_input(const Graph& graph, ValueId v) {
  const Node* node = producer_is(graph, v, "DequantizeLinear");
  return node && !graph.constant(node->input(0)) && quantize_params(graph, *node) ? node : nullptr;
}

bool is_row(const Graph& graph, ValueId v, int64_t n) {
  const Tensor* tensor = graph.constant(v);
  return tensor && tensor->dtype() == DType::kF32 && tensor->shape() == Shape{n};
}

// A layer of which only the weight is quantised.
bool keep_x_float(Graph& graph, NodeId n, const Weight& weight, ValueId bias, PassContext& ctx) {
  const Node& node = graph.node(n);
  const ValueId x = node.inputs[0];
  if (graph.constant(x)) return false;
  const bool int8 = ctx.precision == Precision::kInt8;
  if (int8 && weight.block_size > 0) return false;  // quantised anew, for each output
  const NodeId made = take_over(graph, node.outputs[0], "sprun", int8 ? "LinearInt8" : "LinearDequant", 1,
                                {x, weight.codes, weight.scale, weight.zero, bias});
  AttrMap& attrs = graph.node(made).attrs;
  if (int8) attrs.set("x_quant", std::string("dynamic_row"));
  attrs.set("trans_w", int64_t{weight.trans});
  if (weight.block_size > 0) attrs.set("block_size", weight.block_size);
  return true;
}

bool fuse_at(Graph& graph, NodeId n, PassContext& ctx) {
  const Node& node = graph.node(n);
  const bool gemm = node.is("Gemm");
  const auto weight = quantized_weight(graph, node.input(1), gemm && node.attrs.get_int("transB", 0) != 0);
  if (!weight) return false;
  const Node* x = quantized_input(graph, node.input(0));
  const int64_t width = graph.constant(weight->codes)->shape()[weight->trans ? 0 : 1];
  const ValueId bias = gemm ? node.input(2) : kNoValue;
  const bool plain_gemm = !gemm || (node.attrs.get_int("transA", 0) == 0 && node.attrs.get_float("alpha", 1) == 1 &&
                                    node.attrs.get_float("beta", 1) == 1 && (bias == kNoValue || is_row(graph, bias, width)));
  if (!plain_gemm) {
    ctx.note("fuse_qdq_linear: '" + node.name + "' has 8-bit weights, but is a Gemm with alpha, beta, transA or a C " +
             "that is not one row");
    return false;
  }
  if (x == nullptr || weight->block_size > 0) return keep_x_float(graph, n, *weight, bias, ctx);
  const std::vector<ValueId> inputs = {x->inputs[0], weight->codes, weight->scale, weight->zero,
                                       bias,         kNoValue,      x->inputs[1],  x->input(2)};
  const NodeId made = take_over(graph, node.outputs[0], "sprun", "LinearInt8", 1, inputs);
  graph.node(made).attrs.set("x_quant", std::string("static"));
  graph.node(made).attrs.set("trans_w", int64_t{weight->trans});
  return true;
}

}  // namespace

Result<int> pass_fuse_qdq_linear(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    const Node& node = graph.node(n);
    if (!node.dead && (node.is("MatMul") || node.is("Gemm")) && fuse_at(graph, n, ctx)) ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
