#include "tools/compress/output_bias.h"

#include <cstring>
#include <utility>

#include "runtime/base/half.h"
#include "tools/compress/graph_edit.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

double element(const Tensor& t, int64_t i) {
  const auto* at = static_cast<const char*>(t.data()) + i * dtype_size(t.dtype());  // maybe unaligned
  if (t.dtype() == DType::kF32) {
    float value = 0;
    std::memcpy(&value, at, sizeof value);
    return double{value};
  }
  if (t.dtype() == DType::kF16) {
    Float16 value;
    std::memcpy(&value, at, sizeof value);
    return double{to_float(value)};
  }
  BFloat16 value;
  std::memcpy(&value, at, sizeof value);
  return double{to_float(value)};
}

Result<Tensor> vector_tensor(const Vector& v, DType dtype) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(dtype, Shape{v.size()}));
  void* data = tensor.mutable_view().data;
  for (int64_t i = 0; i < v.size(); ++i) {
    if (dtype == DType::kF32) static_cast<float*>(data)[i] = static_cast<float>(v[i]);
    else if (dtype == DType::kF16) static_cast<Float16*>(data)[i] = to_float16(v[i]);
    else static_cast<BFloat16*>(data)[i] = to_bfloat16(v[i]);
  }
  return tensor;
}

// A constant that adds one number to each output, or the same to all.
bool is_bias(const Graph& graph, ValueId v, int64_t n) {
  const Tensor* t = graph.constant(v);
  if (t == nullptr || !(t->dtype() == DType::kF32 || t->dtype() == DType::kF16 || t->dtype() == DType::kBf16)) return false;
  return t->num_elements() == 1 || (t->num_elements() == n && t->shape().back() == n);
}

Status change_bias(Graph& graph, NodeId node, size_t slot, const Vector& added) {
  const Tensor& old = *graph.constant(graph.node(node).input(slot));
  Vector sum = added;
  for (int64_t i = 0; i < sum.size(); ++i) sum[i] += element(old, old.num_elements() == 1 ? 0 : i);
  SPRUN_ASSIGN(Tensor tensor, vector_tensor(sum, old.dtype()));
  replace_constant_input(graph, node, slot, std::move(tensor));
  return {};
}

// The layer gets a new result; a new Add makes the old one of it.
Status insert_add(Graph& graph, const LinearLayer& layer, const Vector& added) {
  SPRUN_ASSIGN(Tensor tensor, vector_tensor(added, graph.constant(layer.weight)->dtype()));
  const std::string name = graph.value(graph.node(layer.node).outputs[0]).name;
  const ValueId bias = graph.add_constant(graph.unique_name(layer.weight_name + "_bias"), std::move(tensor));
  const ValueId product = graph.add_value(graph.unique_name(name + "_product"));
  const ValueId sum = add_simple_node(graph, layer.node, "Add", {product, bias}, name + "_biased");
  const NodeId add = graph.value(sum).producer;
  graph.node(add).outputs[0] = kNoValue;
  graph.value(sum).producer = graph::kNoNode;
  graph.move_output(layer.node, 0, add, 0);
  graph.node(layer.node).outputs[0] = product;
  graph.value(product).producer = layer.node;
  return {};
}

}  // namespace

Status add_output_bias(Graph& graph, const LinearLayer& layer, const Vector& added) {
  if (added.isZero(0)) return {};
  const Node& node = graph.node(layer.node);
  const Vector wanted = added * double{node.attrs.get_float("alpha", 1)};
  const double beta = node.is("Gemm") ? double{node.attrs.get_float("beta", 1)} : 1;
  if (node.is("Gemm") && beta != 0 && is_bias(graph, node.input(2), layer.n))
    return change_bias(graph, layer.node, 2, wanted / beta);
  const ValueId y = node.outputs[0];
  if (graph.has_one_use(y)) {
    const NodeId user = graph.value(y).users[0];
    const Node& add = graph.node(user);
    const size_t slot = add.inputs.empty() || add.inputs[0] == y ? 1 : 0;
    if (add.is("Add") && is_bias(graph, add.input(slot), layer.n)) return change_bias(graph, user, slot, wanted);
  }
  return insert_add(graph, layer, wanted);
}

}  // namespace sprun::compress
