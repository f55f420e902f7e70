#include "graph/passes/ffn_layer.h"

#include <algorithm>
#include <vector>

#include "graph/ir/pattern.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {
namespace {

bool is_row(const Graph& graph, ValueId v, int64_t n) {
  const Tensor* tensor = graph.constant(v);
  return tensor && is_float(tensor->dtype()) && tensor->shape() == Shape{n};
}

bool makes_codes(const Node& node) {
  const LinearLayout at = linear_layout(node);
  return at.int8 && node.input(at.y_scale()) != kNoValue;
}

std::optional<FfnLayerMatch> match_linear(const Graph& graph, const Node& node, ValueId v) {
  const LinearLayout at = linear_layout(node);
  size_t index = 0;
  while (index < node.outputs.size() && node.outputs[index] != v) ++index;
  const bool single = at.n == 1;
  if (index >= node.outputs.size() || (!single && node.attrs.get_int("split", 0) == 0)) return std::nullopt;
  const std::string x_quant(node.attrs.get_string("x_quant", at.int8 ? "dynamic_tensor" : ""));
  if (node.attrs.get_float("alpha", 1.0F) != 1.0F) return std::nullopt;
  const int i = static_cast<int>(index);
  FfnLayerMatch layer;
  layer.form = at.int8 ? "int8" : at.codes ? "dequant" : "float";
  layer.x = node.inputs[0];
  layer.weight = node.input(at.weight(i));
  layer.bias = node.input(at.bias(i));
  layer.residual = node.input(at.residual());
  if (at.codes) {
    layer.scale = node.input(at.scale(i));
    layer.zero = node.input(at.zero(i));
    if (!graph.constant(layer.scale) || (layer.zero != kNoValue && !graph.constant(layer.zero))) return std::nullopt;
  }
  layer.trans = node.attrs.get_int("trans_w", 0) != 0;
  layer.x_quant = x_quant;
  if (x_quant == "static") {
    layer.x_scale = node.input(at.x_scale());
    layer.x_zero = node.input(at.x_zero());
    if (!graph.constant(layer.x_scale) || (layer.x_zero != kNoValue && !graph.constant(layer.x_zero))) return std::nullopt;
  }
  if (at.codes && !at.int8) layer.block_size = node.attrs.get_int("block_size", 0);
  layer.precision = node.attrs.get_string("precision", "");
  layer.activation = node.attrs.get_string("activation", "none");
  return layer;
}

// MatMul and Gemm with 16-bit weights: no pass makes linear layers of them.
std::optional<FfnLayerMatch> match_matmul(const Graph& graph, const Node& node) {
  FfnLayerMatch layer;
  layer.x = node.inputs[0];
  layer.weight = node.inputs[1];
  const bool gemm = node.is("Gemm");
  if (const Node* transpose = producer_is(graph, layer.weight, "Transpose")) {
    if (transpose->attrs.get_ints("perm") == std::vector<int64_t>{0, 1}) return std::nullopt;
    layer.weight = transpose->inputs[0];
    layer.trans = true;
  }
  const Tensor* weight = graph.constant(layer.weight);
  const bool half = weight && (weight->dtype() == DType::kF16 || weight->dtype() == DType::kBf16);
  if (!half || weight->shape().rank() != 2) return std::nullopt;
  if (!gemm) return layer;
  if (node.attrs.get_int("transA", 0) != 0 || node.attrs.get_float("alpha", 1) != 1) return std::nullopt;
  if (node.attrs.get_int("transB", 0) != 0) layer.trans = !layer.trans;
  layer.bias = node.input(2);
  const bool fits = layer.bias == kNoValue || (node.attrs.get_float("beta", 1) == 1 &&
                                              is_row(graph, layer.bias, weight->shape()[layer.trans ? 0 : 1]));
  return fits ? std::optional(layer) : std::nullopt;
}

std::optional<FfnLayerMatch> match_nbits(const Graph& graph, const Node& node) {
  FfnLayerMatch layer;
  layer.form = "nbits";
  layer.x = node.inputs[0];
  layer.weight = node.input(1);
  layer.scale = node.input(2);
  layer.zero = node.input(3);
  layer.bias = node.input(5);
  layer.n = node.attrs.get_int("N", 0);
  layer.k = node.attrs.get_int("K", 0);
  layer.bits = node.attrs.get_int("bits", 4);
  layer.block_size = node.attrs.get_int("block_size", 0);
  const Tensor *codes = graph.constant(layer.weight), *scale = graph.constant(layer.scale);
  const bool fits = codes && scale && scale->dtype() == DType::kF32 && codes->num_elements() > 0 &&
                    node.input(4) == kNoValue && (layer.zero == kNoValue || graph.constant(layer.zero)) &&
                    (layer.bias == kNoValue || is_row(graph, layer.bias, layer.n));
  return fits ? std::optional(layer) : std::nullopt;
}

// codes: v is the layer's result as 8-bit codes.
std::optional<FfnLayerMatch> match_product(const Graph& graph, ValueId v, bool codes = false) {
  const Node* node = graph.producer(v);
  if (node == nullptr) return std::nullopt;
  std::optional<FfnLayerMatch> layer;
  if (is_linear(*node) && makes_codes(*node) == codes) layer = match_linear(graph, *node, v);
  if (node->is("MatMul") || node->is("Gemm")) layer = match_matmul(graph, *node);
  if (node->is("com.microsoft", "MatMulNBits")) layer = match_nbits(graph, *node);
  if (!layer) return std::nullopt;
  const Tensor* weight = graph.constant(layer->weight);
  if (weight == nullptr || graph.constant(layer->x)) return std::nullopt;
  if (layer->form != "nbits") {
    if (weight->shape().rank() != 2) return std::nullopt;
    layer->n = weight->shape()[layer->trans ? 0 : 1];
    layer->k = weight->shape()[layer->trans ? 1 : 0];
  }
  layer->width = layer->n;
  return layer;
}

// The product, or the product and a constant row.
std::optional<FfnLayerMatch> match_biased(const Graph& graph, ValueId v) {
  if (auto layer = match_product(graph, v)) return layer;
  const Node* add = producer_is(graph, v, "Add");
  if (add == nullptr) return std::nullopt;
  for (size_t i = 0; i < 2; ++i) {
    const ValueId product = add->inputs[i], row = add->inputs[1 - i];
    if (!graph.constant(row) || !graph.has_one_use(product)) continue;
    auto layer = match_product(graph, product);
    const bool free = layer && layer->bias == kNoValue && layer->residual == kNoValue && layer->activation == "none";
    if (!free || !is_row(graph, row, layer->n)) continue;
    layer->bias = row;
    return layer;
  }
  return std::nullopt;
}

std::optional<FfnLayerMatch> match_stages(const Graph& graph, ValueId v);

// DequantizeLinear of a layer's codes.
std::optional<FfnLayerMatch> match_rounded(const Graph& graph, ValueId v) {
  const Node* node = producer_is(graph, v, "DequantizeLinear");
  const auto params = node ? quantize_params(graph, *node) : std::nullopt;
  if (!params || !graph.has_one_use(node->inputs[0])) return std::nullopt;
  auto layer = match_ffn_codes(graph, node->inputs[0]);
  return layer && same_codes(graph, layer->stages.back().codes, *params) ? layer : std::nullopt;
}

// A constant row added to what a layer's codes stand for.
std::optional<FfnLayerMatch> match_offset(const Graph& graph, ValueId v) {
  const Node* add = producer_is(graph, v, "Add");
  if (add == nullptr) return std::nullopt;
  for (size_t i = 0; i < 2; ++i) {
    const ValueId inner = add->inputs[i], row = add->inputs[1 - i];
    const Tensor* constant = graph.constant(row);
    if (!constant || constant->dtype() != DType::kF32 || !graph.has_one_use(inner)) continue;
    auto layer = match_rounded(graph, inner);
    if (!layer || layer->activation != "none" || constant->shape() != Shape{layer->n}) continue;
    layer->stages.push_back({{}, row});
    layer->rectified = false;
    return layer;
  }
  return std::nullopt;
}

std::optional<FfnLayerMatch> match_stages(const Graph& graph, ValueId v) {
  if (auto layer = match_biased(graph, v)) return layer;
  if (auto layer = match_rounded(graph, v)) return layer;
  return match_offset(graph, v);
}

QuantizeParams result_params(const Graph& graph, const Node& linear) {
  const LinearLayout at = linear_layout(linear);
  QuantizeParams params = {linear.input(at.y_scale()), linear.input(at.y_zero())};
  if (const Tensor* zero = graph.constant(params.zero)) params.dtype = zero->dtype();
  return params;
}

std::optional<ColumnRange> split_range(const Graph& graph, const Node& split, ValueId v) {
  const auto& shape = graph.value(split.inputs[0]).shape;
  const int64_t axis = split.attrs.get_int("axis", 0);
  if (axis != -1 && !(shape && axis == shape->rank() - 1)) return std::nullopt;
  std::vector<int64_t> sizes;
  if (split.input(1) != kNoValue) {
    const auto given = int_constant(graph, split.inputs[1]);
    if (!given) return std::nullopt;
    sizes = *given;
  } else {
    sizes = split.attrs.get_ints("split");
  }
  const int64_t total = last_size(graph, split.inputs[0]);
  const auto parts = static_cast<int64_t>(split.outputs.size());
  if (sizes.empty() && total > 0 && total % parts == 0) sizes.assign(split.outputs.size(), total / parts);
  if (sizes.size() != split.outputs.size()) return std::nullopt;
  int64_t offset = 0;
  for (size_t i = 0; i < sizes.size(); offset += sizes[i++]) {
    if (split.outputs[i] == v) return ColumnRange{split.inputs[0], offset, sizes[i]};
  }
  return std::nullopt;
}

std::optional<ColumnRange> slice_range(const Graph& graph, const Node& slice) {
  const bool by_input = slice.version >= 10;
  const auto values = [&](size_t input, const char* name) -> std::optional<std::vector<int64_t>> {
    if (by_input) return int_constant(graph, slice.input(input));
    return slice.attrs.get_ints(name);
  };
  const auto starts = values(1, "starts"), ends = values(2, "ends"), axes = values(3, "axes");
  if (!starts || !ends || !axes || starts->size() != 1 || ends->size() != 1 || axes->size() != 1) return std::nullopt;
  if (by_input && slice.input(4) != kNoValue) {
    const auto steps = int_constant(graph, slice.inputs[4]);
    if (!steps || *steps != std::vector<int64_t>{1}) return std::nullopt;
  }
  const auto& shape = graph.value(slice.inputs[0]).shape;
  if ((*axes)[0] != -1 && !(shape && (*axes)[0] == shape->rank() - 1)) return std::nullopt;
  const int64_t total = last_size(graph, slice.inputs[0]);
  int64_t begin = (*starts)[0], end = (*ends)[0];
  if (total >= 0) {
    if (begin < 0) begin += total;
    if (end < 0) end += total;
    end = std::min(end, total);
  }
  if (begin < 0) return std::nullopt;
  constexpr int64_t kOpen = int64_t{1} << 30;  // "to the end" of an axis of unknown size
  return ColumnRange{slice.inputs[0], begin, end < 0 || end > kOpen ? -1 : end - begin};
}

}  // namespace

std::optional<FfnLayerMatch> match_ffn_codes(const Graph& graph, ValueId codes) {
  const Node* node = graph.producer(codes);
  if (node == nullptr) return std::nullopt;
  std::optional<FfnLayerMatch> layer;
  std::optional<QuantizeParams> params;
  if (node->is("QuantizeLinear") && graph.has_one_use(node->inputs[0])) {
    params = quantize_params(graph, *node);
    const ValueId x = node->inputs[0], inner = relu_input(graph, x);
    layer = match_stages(graph, inner == kNoValue ? x : inner);
    if (layer && inner != kNoValue) {
      if (layer->activation != "none" || !graph.has_one_use(inner)) return std::nullopt;
      layer->activation = "relu";
    }
  } else if (is_linear(*node)) {
    layer = match_product(graph, codes, true);
    params = result_params(graph, *node);
  }
  const bool fits = layer && params && layer->x_quant == "static" && layer->residual == kNoValue &&
                    (layer->activation == "none" || layer->activation == "relu") && graph.constant(params->scale);
  if (!fits) return std::nullopt;
  layer->stages.push_back({*params});
  const int64_t lowest = params->dtype == DType::kS8 ? -128 : 0;
  layer->rectified = layer->activation == "relu" || zero_value(graph, *params) == lowest;
  return layer;
}

std::optional<ColumnRange> column_range(const Graph& graph, ValueId v) {
  const Node* node = graph.producer(v);
  if (node == nullptr) return std::nullopt;
  if (node->is("Split")) return split_range(graph, *node, v);
  return node->is("Slice") ? slice_range(graph, *node) : std::nullopt;
}

std::optional<FfnLayerMatch> match_ffn_layer(const Graph& graph, ValueId v) {
  v = skip_casts(graph, v);
  if (auto layer = match_stages(graph, v)) return layer;
  const auto range = column_range(graph, v);
  auto layer = range ? match_biased(graph, range->source) : std::nullopt;
  if (!layer || layer->residual != kNoValue || graph.is_output(range->source)) return std::nullopt;
  layer->column = range->offset;
  layer->width = range->size < 0 ? layer->n - range->offset : range->size;
  return layer->width > 0 && layer->column + layer->width <= layer->n ? layer : std::nullopt;
}

}  // namespace sprun::graph
