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
constexpr double kRestSteps = 254, kRestZero = 128;

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

  Status dynamic(Tensor weight, Tensor scale, bool residual) {
    const ValueId w = constant("_int8", std::move(weight)),
                  w_scale = constant("_scale", std::move(scale));
    const Quantized x = quantized_dynamically(layer_.x);
    const Product first = dynamic_product(x, w, w_scale, "");
    if (residual) {
      const ValueId rest = rest_of(layer_.x, dequantized(x));
      const Product second = dynamic_product(quantized_dynamically(rest), w, w_scale, "_rest");
      finish("Add", {scaled(first, "_scaled"), scaled(second, "_rest_scaled")});
    } else {
      finish("Mul", {first.sums, first.scales});
    }
    layer_.node = first.node;
    layer_.weight = w;
    return {};
  }

  Status static_range(Tensor weight, Tensor scale, const Int8Form& form) {
    SPRUN_ASSIGN(const ValueId x, quantized_statically(layer_.x, steps_of(form.range)));
    const ValueId w = constant("_int8", std::move(weight)),
                  w_scale = constant("_scale", std::move(scale));
    const NodeId weights = add("DequantizeLinear", {w, w_scale}, {"_dequantized"});
    graph_.node(weights).attrs.set("axis", int64_t{1});
    const ValueId floats_of_w = graph_.node(weights).outputs[0];
    if (form.residual) {
      const ValueId rest = rest_of(layer_.x, x);
      // What rounding leaves is at most half a step; as many steps on both sides of 0.
      const Steps finer = {steps_of(form.range).scale / kRestSteps, kRestZero};
      SPRUN_ASSIGN(const ValueId coded, quantized_statically(rest, finer));
      const NodeId first = add("MatMul", {x, floats_of_w}, {"_first"});
      const NodeId second = add("MatMul", {coded, floats_of_w}, {"_rest"});
      finish("Add", {graph_.node(first).outputs[0], graph_.node(second).outputs[0]});
      layer_.node = first;
    } else {
      layer_.node = finish("MatMul", {x, floats_of_w});
    }
    layer_.weight = w;
    return {};
  }

 private:
  struct Quantized {
    ValueId codes, scale, zero;
  };
  struct Product {
    NodeId node;
    ValueId sums, scales;  // sums * scales is the result
  };
  struct Steps {
    double scale, zero;
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

  // The only user of this kind that reads v first: layers with the same input share it.
  NodeId user_of(ValueId v, std::string_view op, size_t slot = 0) const {
    for (NodeId n : graph_.value(v).users) {
      if (graph_.node(n).is(op) && graph_.node(n).input(slot) == v) return n;
    }
    return kNoNode;
  }

  Quantized quantized_dynamically(ValueId v) {
    NodeId n = user_of(v, "DynamicQuantizeLinear");
    if (n == kNoNode) {
      n = add_named(graph_.value(v).name, "DynamicQuantizeLinear", {v},
                    {"_quantized", "_scale", "_zero_point"});
    }
    const auto& outputs = graph_.node(n).outputs;
    return {outputs[0], outputs[1], outputs[2]};
  }

  ValueId dequantized(const Quantized& x) {
    NodeId n = user_of(x.codes, "DequantizeLinear");
    if (n == kNoNode) {
      n = add_named(graph_.value(x.codes).name, "DequantizeLinear", {x.codes, x.scale, x.zero},
                    {"_dequantized"});
    }
    return graph_.node(n).outputs[0];
  }

  // v - rounded, what the first codes leave.
  ValueId rest_of(ValueId v, ValueId rounded) {
    NodeId n = user_of(rounded, "Sub", 1);
    if (n == kNoNode) n = add_named(graph_.value(v).name, "Sub", {v, rounded}, {"_rest"});
    return graph_.node(n).outputs[0];
  }

  Product dynamic_product(const Quantized& x, ValueId w, ValueId w_scale, const std::string& tag) {
    const NodeId product = add("MatMulInteger", {x.codes, w, x.zero}, {tag + "_int32"});
    const NodeId cast = add("Cast", {graph_.node(product).outputs[0]}, {tag + "_float"});
    graph_.node(cast).attrs.set("to", int64_t{1});
    const NodeId scales = add("Mul", {x.scale, w_scale}, {tag + "_scales"});
    return {product, graph_.node(cast).outputs[0], graph_.node(scales).outputs[0]};
  }

  ValueId scaled(const Product& product, const char* suffix) {
    return graph_.node(add("Mul", {product.sums, product.scales}, {suffix})).outputs[0];
  }

  // The range holds 0, so that padding and zeros stay exact.
  static Steps steps_of(const ValueRange& range) {
    const double low = std::min(range.min, 0.0F), high = std::max(range.max, 0.0F);
    const double scale = high > low ? (high - low) / 255 : 1;
    return {scale, std::clamp(std::nearbyint(-low / scale), 0.0, 255.0)};
  }

  Result<ValueId> quantized_statically(ValueId v, const Steps& steps) {
    if (const NodeId n = user_of(v, "QuantizeLinear"); n != kNoNode) {
      const NodeId after = user_of(graph_.node(n).outputs[0], "DequantizeLinear");
      if (after != kNoNode) return graph_.node(after).outputs[0];
    }
    SPRUN_ASSIGN(Tensor scale_tensor, floats(Vector::Constant(1, steps.scale), Shape{}));
    SPRUN_ASSIGN(Tensor zero_tensor, Tensor::allocate(DType::kU8, Shape{}));
    *static_cast<uint8_t*>(zero_tensor.mutable_view().data) = static_cast<uint8_t>(steps.zero);
    const std::string name = graph_.value(v).name;
    const ValueId s =
        graph_.add_constant(graph_.unique_name(name + "_scale"), std::move(scale_tensor));
    const ValueId z =
        graph_.add_constant(graph_.unique_name(name + "_zero_point"), std::move(zero_tensor));
    const NodeId q = add_named(name, "QuantizeLinear", {v, s, z}, {"_quantized"});
    return graph_
        .node(add_named(name, "DequantizeLinear", {graph_.node(q).outputs[0], s, z},
                        {"_dequantized"}))
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
                 const Int8Form& form) {
  SPRUN_ASSIGN(Tensor weight, codes(w, scales));
  SPRUN_ASSIGN(Tensor scale, floats(scales, Shape{scales.size()}));
  Rewriter rewriter(graph, layer);
  if (form.mode == Int8Mode::kDynamic)
    return rewriter.dynamic(std::move(weight), std::move(scale), form.residual);
  return rewriter.static_range(std::move(weight), std::move(scale), form);
}

}  // namespace sprun::compress
