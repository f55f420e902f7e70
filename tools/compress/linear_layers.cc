#include "tools/compress/linear_layers.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "runtime/base/half.h"
#include "tools/compress/pattern.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

struct WeightPath {
  ValueId constant = kNoValue;
  bool turned = false;
};

// The constant behind v, through Transpose and Identity.
WeightPath constant_behind(const Graph& graph, ValueId v) {
  WeightPath path{v, false};
  for (int depth = 0; depth < 4 && path.constant != kNoValue; ++depth) {
    if (graph.constant(path.constant) != nullptr) return path;
    const Node* node = graph.producer(path.constant);
    if (node == nullptr || !(node->is("Transpose") || node->is("Identity"))) break;
    if (node->is("Transpose")) path.turned = !path.turned;
    path.constant = node->input(0);
  }
  return {};
}

bool is_product(const Node& node) {
  return node.is("MatMul") || node.is("Gemm") || node.is("com.microsoft", "FusedMatMul") ||
         node.is("com.microsoft", "Attention");
}

std::string obstacle_of(const Node& node, const Tensor& weight) {
  if (weight.dtype() != DType::kF32 && weight.dtype() != DType::kF16 &&
      weight.dtype() != DType::kBf16)
    return "weights of type " + std::string(dtype_name(weight.dtype()));
  if (weight.num_elements() == 0) return "no weights";
  for (const char* flag : {"transA", "transBatchA", "transBatchB"}) {
    if (node.attrs.get_int(flag, 0) != 0) return std::string(flag) + " is set";
  }
  return {};
}

// A result that reaches a graph output through a bias and nodes that keep the elements.
bool reaches_output(const Graph& graph, ValueId v) {
  for (int depth = 0; depth < 6; ++depth) {
    if (graph.is_output(v)) return true;
    const auto& users = graph.value(v).users;
    if (users.size() != 1) return false;
    const Node& user = graph.node(users[0]);
    constexpr std::array kKeep = {"Add",  "Reshape",  "Squeeze", "Unsqueeze",
                                  "Cast", "Identity", "Split"};
    const bool keeps =
        std::any_of(kKeep.begin(), kKeep.end(), [&](const char* op) { return user.is(op); });
    const bool adds_activation = user.is("Add") && graph.constant(user.input(0)) == nullptr &&
                                 graph.constant(user.input(1)) == nullptr;
    if (!keeps || adds_activation || user.outputs.empty() || user.output(0) == kNoValue)
      return false;
    v = user.output(0);
  }
  return false;
}

std::optional<LinearLayer> layer_at(const Graph& graph, NodeId n) {
  const Node& node = graph.node(n);
  if (!is_product(node) || node.input(0) == kNoValue || graph.constant(node.input(0)) != nullptr)
    return std::nullopt;
  const WeightPath path = constant_behind(graph, node.input(1));
  if (path.constant == kNoValue) return std::nullopt;
  const Tensor& weight = *graph.constant(path.constant);
  if (weight.shape().rank() != 2) return std::nullopt;
  LinearLayer layer;
  layer.name = node.name.empty() ? graph.value(path.constant).name : node.name;
  layer.weight_name = graph.value(path.constant).name;
  layer.op = node.op_type;
  layer.node = n;
  layer.x = node.input(0);
  layer.weight = path.constant;
  layer.slot_outputs_first = node.attrs.get_int("transB", 0) != 0;
  layer.outputs_first = layer.slot_outputs_first != path.turned;
  layer.n = weight.shape()[layer.outputs_first ? 0 : 1];
  layer.k = weight.shape()[layer.outputs_first ? 1 : 0];
  layer.is_head = reaches_output(graph, node.outputs[0]);
  layer.obstacle = obstacle_of(node, weight);
  return layer;
}

template <class T, class Convert>
void copy_in(const Tensor& t, Matrix& m, const Convert& convert) {
  const auto* bytes = static_cast<const char*>(t.data());  // maybe unaligned, in a mapped file
  for (int64_t i = 0; i < m.size(); ++i) {
    T element;
    std::memcpy(&element, bytes + static_cast<size_t>(i) * sizeof(T), sizeof(T));
    m.data()[i] = convert(element);
  }
}

Result<Tensor> tensor_of(const Matrix& m, DType dtype) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(dtype, Shape{m.rows(), m.cols()}));
  void* data = tensor.mutable_view().data;
  for (int64_t i = 0; i < m.size(); ++i) {
    const double value = m.data()[i];
    if (dtype == DType::kF32) static_cast<float*>(data)[i] = static_cast<float>(value);
    else if (dtype == DType::kF16) static_cast<Float16*>(data)[i] = to_float16(value);
    else static_cast<BFloat16*>(data)[i] = to_bfloat16(value);
  }
  return tensor;
}

// True if nothing but this layer depends on its constant.
bool owns_weight(const Graph& graph, const LinearLayer& layer) {
  ValueId v = graph.node(layer.node).input(1);
  while (true) {
    if (!graph.has_one_use(v)) return false;
    if (v == layer.weight) return true;
    v = graph.producer(v)->input(0);
  }
}

}  // namespace

bool is_named(const LinearLayer& layer, std::string_view pattern) {
  return matches(pattern, layer.name) || matches(pattern, layer.weight_name);
}

Result<std::vector<LinearLayer>> find_linear_layers(const Graph& graph) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  std::vector<LinearLayer> layers;
  std::map<ValueId, std::string> owners;
  for (NodeId n : order) {
    auto layer = layer_at(graph, n);
    if (!layer) continue;
    const auto [it, fresh] = owners.emplace(layer->weight, layer->name);
    if (!fresh && layer->obstacle.empty()) layer->obstacle = "shares the weight of " + it->second;
    layers.push_back(std::move(*layer));
  }
  return layers;
}

LinearLayer as_it_is_now(const Graph& graph, LinearLayer layer) {
  const auto now = layer_at(graph, layer.node);
  if (!now) return layer;
  layer.weight = now->weight;
  layer.outputs_first = now->outputs_first;
  return layer;
}

Matrix read_weight(const Graph& graph, const LinearLayer& layer) {
  const Tensor& t = *graph.constant(layer.weight);
  Matrix stored(t.shape()[0], t.shape()[1]);
  if (t.dtype() == DType::kF32) copy_in<float>(t, stored, [](float v) { return double{v}; });
  else if (t.dtype() == DType::kF16)
    copy_in<Float16>(t, stored, [](Float16 v) { return double{to_float(v)}; });
  else copy_in<BFloat16>(t, stored, [](BFloat16 v) { return double{to_float(v)}; });
  if (layer.outputs_first) return stored;
  return stored.transpose();
}

Status write_weight(Graph& graph, LinearLayer& layer, const Matrix& w) {
  const DType dtype = graph.constant(layer.weight)->dtype();
  if (owns_weight(graph, layer)) {
    SPRUN_ASSIGN(Tensor tensor, tensor_of(layer.outputs_first ? w : Matrix(w.transpose()), dtype));
    graph.make_constant(layer.weight, std::move(tensor));
    return {};
  }
  SPRUN_ASSIGN(Tensor tensor,
               tensor_of(layer.slot_outputs_first ? w : Matrix(w.transpose()), dtype));
  layer.weight = graph.add_constant(
      graph.unique_name(graph.value(layer.weight).name + "_compressed"), std::move(tensor));
  layer.outputs_first = layer.slot_outputs_first;
  graph.set_input(layer.node, 1, layer.weight);
  return {};
}

}  // namespace sprun::compress
