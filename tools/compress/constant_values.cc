#include "tools/compress/constant_values.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "graph/ops/op.h"

namespace sprun::compress {

Matrix read_floats(const void* data, int64_t rows, int64_t cols) {
  Matrix m(rows, cols);
  const auto* bytes = static_cast<const char*>(data);  // maybe unaligned, in a mapped file
  for (int64_t i = 0; i < m.size(); ++i) {
    float element;
    std::memcpy(&element, bytes + static_cast<size_t>(i) * sizeof(float), sizeof(float));
    m.data()[i] = double{element};
  }
  return m;
}

Result<Tensor> float_tensor(const Matrix& m, const Shape& shape) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::allocate(DType::kF32, shape));
  auto* data = static_cast<float*>(tensor.mutable_view().data);
  std::transform(m.data(), m.data() + m.size(), data,
                 [](double v) { return static_cast<float>(v); });
  return tensor;
}

Result<graph::ValueId> add_matrix(graph::Graph& graph, const std::string& name, const Matrix& m) {
  SPRUN_ASSIGN(Tensor tensor, float_tensor(m, Shape{m.rows(), m.cols()}));
  return graph.add_constant(graph.unique_name(name), std::move(tensor));
}

Result<graph::ValueId> add_vector(graph::Graph& graph, const std::string& name, const Vector& v) {
  SPRUN_ASSIGN(Tensor tensor, float_tensor(v, Shape{v.size()}));
  return graph.add_constant(graph.unique_name(name), std::move(tensor));
}

graph::ValueId add_ints(graph::Graph& graph, const std::string& name,
                        const std::vector<int64_t>& values) {
  Tensor tensor = Tensor::allocate(DType::kS64, Shape{static_cast<int64_t>(values.size())}).value();
  std::copy(values.begin(), values.end(), tensor.mutable_view().as<int64_t>());
  return graph.add_constant(graph.unique_name(name), std::move(tensor));
}

graph::ValueId add_operation(graph::Graph& graph, const std::string& name, const std::string& op,
                             int version, std::vector<graph::ValueId> inputs) {
  const graph::NodeId n =
      graph.add_node("", op, version, std::move(inputs), {graph.unique_name(name)});
  graph.node(n).name = graph.value(graph.node(n).outputs[0]).name;
  graph.node(n).def = graph::find_op("", op, version);
  return graph.node(n).outputs[0];
}

}  // namespace sprun::compress
