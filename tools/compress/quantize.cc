#include "tools/compress/quantize.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

constexpr int kMinOpsetDynamic = 11, kMinOpsetStatic = 13;

Result<Tensor> floats(const Vector& values, const Shape& shape) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(DType::kF32, shape));
  auto* data = static_cast<float*>(tensor.mutable_view().data);
  for (int64_t i = 0; i < values.size(); ++i) data[i] = static_cast<float>(values[i]);
  return tensor;
}

// [K, N] codes of W[N, K].
Result<Tensor> codes(const Matrix& w, const Vector& scales) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(DType::kS8, Shape{w.cols(), w.rows()}));
  auto* data = static_cast<int8_t*>(tensor.mutable_view().data);
  for (int64_t n = 0; n < w.rows(); ++n) {
    for (int64_t k = 0; k < w.cols(); ++k) {
      data[k * w.rows() + n] =
          static_cast<int8_t>(std::clamp(std::nearbyint(w(n, k) / scales[n]), -127.0, 127.0));
    }
  }
  return tensor;
}

// Builds the nodes of one layer.
class Rewriter {
 public:
  Rewriter(Graph& graph, LinearLayer& layer)
      : graph_(graph), layer_(layer), version_(graph.node(layer.node).version), base_(layer.name) {}

  Status dynamic(Tensor weight, Tensor scale) {
    const Quantized x = quantized_dynamically();
    const ValueId w = constant("_int8", std::move(weight)),
                  w_scale = constant("_scale", std::move(scale));
    const NodeId product = add("MatMulInteger", {x.codes, w, x.zero}, {"_int32"});
    const NodeId cast = add("Cast", {graph_.node(product).outputs[0]}, {"_float"});
    graph_.node(cast).attrs.set("to", int64_t{1});
    const NodeId scales = add("Mul", {x.scale, w_scale}, {"_scales"});
    finish("Mul", {graph_.node(cast).outputs[0], graph_.node(scales).outputs[0]});
    layer_.node = product;
    layer_.weight = w;
    return {};
  }

  Status static_range(Tensor weight, Tensor scale, ValueRange range) {
    SPRUN_ASSIGN(const ValueId x, quantized_statically(range));
    const ValueId w = constant("_int8", std::move(weight)),
                  w_scale = constant("_scale", std::move(scale));
    const NodeId dequantized = add("DequantizeLinear", {w, w_scale}, {"_dequantized"});
    graph_.node(dequantized).attrs.set("axis", int64_t{1});
    layer_.node = finish("MatMul", {x, graph_.node(dequantized).outputs[0]});
    layer_.weight = w;
    return {};
  }

 private:
  struct Quantized {
    ValueId codes, scale, zero;
  };

  ValueId constant(const char* suffix, Tensor tensor) {
    const std::string base = graph_.value(layer_.weight).name;
    return graph_.add_constant(graph_.unique_name(base + suffix), std::move(tensor));
  }

  // `base` is a copy: names of values move when values are added.
  NodeId add_named(std::string base, std::string_view op, std::vector<ValueId> inputs,
                   const std::vector<std::string>& suffixes) {
    std::vector<std::string> names;
    for (const std::string& suffix : suffixes) names.push_back(graph_.unique_name(base + suffix));
    const NodeId n = graph_.add_node("", std::string(op), version_, std::move(inputs), names);
    graph_.node(n).name = base + suffixes[0];  // runtimes want different names for nodes
    graph_.node(n).def = graph::find_op("", op, version_);
    return n;
  }
  NodeId add(std::string_view op, std::vector<ValueId> inputs,
             const std::vector<std::string>& suffixes) {
    return add_named(base_, op, std::move(inputs), suffixes);
  }

  NodeId user_of_x(std::string_view op) const {
    for (NodeId n : graph_.value(layer_.x).users) {
      if (graph_.node(n).is(op) && graph_.node(n).input(0) == layer_.x) return n;
    }
    return kNoNode;
  }

  Quantized quantized_dynamically() {
    NodeId n = user_of_x("DynamicQuantizeLinear");
    if (n == kNoNode) {
      n = add_named(graph_.value(layer_.x).name, "DynamicQuantizeLinear", {layer_.x},
                    {"_quantized", "_scale", "_zero_point"});
    }
    const auto& outputs = graph_.node(n).outputs;
    return {outputs[0], outputs[1], outputs[2]};
  }

  Result<ValueId> quantized_statically(ValueRange range) {
    if (const NodeId n = user_of_x("QuantizeLinear"); n != kNoNode) {
      const NodeId after = graph::only_user(graph_, graph_.node(n).outputs[0]);
      if (after != kNoNode && graph_.node(after).is("DequantizeLinear"))
        return graph_.node(after).outputs[0];
    }
    // The range holds 0, so that padding and zeros stay exact.
    const double low = std::min(range.min, 0.0F), high = std::max(range.max, 0.0F);
    const double scale = high > low ? (high - low) / 255 : 1;
    SPRUN_ASSIGN(Tensor scale_tensor, floats(Vector::Constant(1, scale), Shape{}));
    SPRUN_ASSIGN(Tensor zero_tensor, Tensor::allocate(DType::kU8, Shape{}));
    *static_cast<uint8_t*>(zero_tensor.mutable_view().data) =
        static_cast<uint8_t>(std::clamp(std::nearbyint(-low / scale), 0.0, 255.0));
    const std::string x = graph_.value(layer_.x).name;
    const ValueId s =
        graph_.add_constant(graph_.unique_name(x + "_scale"), std::move(scale_tensor));
    const ValueId z =
        graph_.add_constant(graph_.unique_name(x + "_zero_point"), std::move(zero_tensor));
    const NodeId q = add_named(x, "QuantizeLinear", {layer_.x, s, z}, {"_quantized"});
    return graph_
        .node(add_named(x, "DequantizeLinear", {graph_.node(q).outputs[0], s, z}, {"_dequantized"}))
        .outputs[0];
  }

  // The node that makes the layer's result from the scaled product, with the bias of a Gemm in
  // between.
  NodeId finish(std::string_view op, std::vector<ValueId> inputs) {
    const NodeId old = layer_.node;
    const ValueId y = graph_.node(old).outputs[0], bias = graph_.node(old).input(2);
    if (bias == kNoValue) return graph::take_over(graph_, y, "", op, version_, std::move(inputs));
    const NodeId product = add(op, std::move(inputs), {"_product"});
    graph::take_over(graph_, y, "", "Add", version_, {graph_.node(product).outputs[0], bias});
    return product;
  }

  Graph& graph_;
  LinearLayer& layer_;
  int version_;
  std::string base_;
};

}  // namespace

Vector int8_scales(const Matrix& w) {
  Vector scales = w.cwiseAbs().rowwise().maxCoeff() / 127;
  return (scales.array() > 0).select(scales, Vector::Ones(scales.size()));
}

Matrix round_to_int8(const Matrix& w, const Vector& scales) {
  Matrix rounded(w.rows(), w.cols());
  for (int64_t n = 0; n < w.rows(); ++n) {
    for (int64_t k = 0; k < w.cols(); ++k) {
      rounded(n, k) = std::clamp(std::nearbyint(w(n, k) / scales[n]), -127.0, 127.0) * scales[n];
    }
  }
  return rounded;
}

std::string int8_obstacle(const Graph& graph, const LinearLayer& layer, Int8Mode mode) {
  const Node& node = graph.node(layer.node);
  const int needed = mode == Int8Mode::kDynamic ? kMinOpsetDynamic : kMinOpsetStatic;
  if (!node.is("MatMul") && !node.is("Gemm"))
    return "int8 of " + node.op_type + " has no standard form";
  if (node.version < needed)
    return fmt::format("int8 needs opset {}, the model has {}", needed, node.version);
  if (graph.constant(layer.weight)->dtype() != DType::kF32) return "int8 needs float32 weights";
  if (node.attrs.get_float("alpha", 1) != 1 || node.attrs.get_float("beta", 1) != 1)
    return "alpha or beta is not 1";
  return {};
}

Status make_int8(Graph& graph, LinearLayer& layer, const Matrix& w, const Vector& scales,
                 Int8Mode mode, ValueRange range) {
  SPRUN_ASSIGN(Tensor weight, codes(w, scales));
  SPRUN_ASSIGN(Tensor scale, floats(scales, Shape{scales.size()}));
  Rewriter rewriter(graph, layer);
  if (mode == Int8Mode::kDynamic) return rewriter.dynamic(std::move(weight), std::move(scale));
  return rewriter.static_range(std::move(weight), std::move(scale), range);
}

}  // namespace sprun::compress
