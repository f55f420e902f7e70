// Runs one node with chosen inputs as constants, for the tests of matrix products and quantisation.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "graph/ops/evaluate.h"
#include "graph/ops/op.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph::testing_support {

struct NodeCall {
  std::string domain = {}, op = {};
  std::vector<Tensor> inputs;  // empty Tensor: absent
  std::vector<std::pair<std::string, Attr>> attrs = {};
  size_t num_outputs = 1;
  int version = 0;         // 0: 28 for ai.onnx, 1 otherwise
  bool constants = false;  // every input but the first is a constant: weights are packed
  int threads = 1;
};

inline Result<std::vector<Tensor>> run_node(const NodeCall& call) {
  Node node;
  node.domain = call.domain;
  node.op_type = call.op;
  node.name = "n";
  node.version = call.version > 0 ? call.version : call.domain.empty() ? 28 : 1;
  std::vector<ConstTensorView> views;
  std::vector<Tensor> constants;
  for (size_t i = 0; i < call.inputs.size(); ++i) {
    node.inputs.push_back(call.inputs[i].empty() ? kNoValue : static_cast<ValueId>(i));
    views.push_back(call.inputs[i].view());
    constants.push_back(call.constants && i > 0 ? call.inputs[i] : Tensor());
  }
  for (size_t i = 0; i < call.num_outputs; ++i) node.outputs.push_back(static_cast<ValueId>(100 + i));
  for (const auto& [name, value] : call.attrs) node.attrs.set(name, value);
  node.def = find_op(node.domain, node.op_type, node.version);
  if (node.def == nullptr) return Status(Code::kBadModel, "no such op");
  ThreadPool pool(call.threads);
  return evaluate(node, views, {.pool = &pool, .constants = constants});
}

template <class T>
Tensor tensor_of(const Shape& shape, const std::vector<T>& values, DType dtype = dtype_of<T>()) {
  Tensor tensor = Tensor::allocate(dtype, shape).value();
  std::copy(values.begin(), values.end(), tensor.mutable_view().as<T>());
  return tensor;
}

// Values of a fixed sequence; integers cover their whole range.
template <class T>
Tensor random_tensor(const Shape& shape, uint32_t seed) {
  std::mt19937 engine(seed);
  Tensor tensor = Tensor::allocate(dtype_of<T>(), shape).value();
  T* out = tensor.mutable_view().as<T>();
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    if constexpr (std::is_integral_v<T>) {
      out[i] = static_cast<T>(engine());
    } else {
      out[i] = static_cast<T>(static_cast<double>(engine()) / 2147483648.0 - 1.0);
    }
  }
  return tensor;
}

inline Tensor as_double(const Tensor& x) {
  if (x.empty()) return x;
  Tensor y = Tensor::allocate(DType::kF64, x.shape()).value();
  for (int64_t i = 0; i < x.num_elements(); ++i)
    y.mutable_view().as<double>()[i] = static_cast<double>(x.as<float>()[i]);
  return y;
}

inline double element(const Tensor& x, int64_t i) {
  switch (x.dtype()) {
    case DType::kF32:
      return static_cast<double>(x.as<float>()[i]);
    case DType::kF64:
      return x.as<double>()[i];
    case DType::kU8:
      return x.as<uint8_t>()[i];
    case DType::kS8:
      return x.as<int8_t>()[i];
    case DType::kS32:
      return x.as<int32_t>()[i];
    default:
      return std::nan("");
  }
}

// Largest difference; infinite when shapes differ.
inline double max_difference(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape()) return INFINITY;
  double worst = 0;
  for (int64_t i = 0; i < a.num_elements(); ++i) {
    const double d = std::abs(element(a, i) - element(b, i));
    if (!(d <= worst)) worst = d;  // a NaN wins
  }
  return worst;
}

// Largest difference over all outputs of two calls; fails the test when one of them does.
inline double difference_of_calls(const NodeCall& call, const NodeCall& other) {
  const auto got = run_node(call), want = run_node(other);
  EXPECT_TRUE(got.ok()) << got.status().message();
  EXPECT_TRUE(want.ok()) << want.status().message();
  if (!got.ok() || !want.ok()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < call.num_outputs; ++i) worst = std::max(worst, max_difference((*got)[i], (*want)[i]));
  return worst;
}

// Between the kernels, which need constant weights, and the plain loop.
inline double kernel_difference(const NodeCall& call) {
  NodeCall prepared = call;
  prepared.constants = true;
  return difference_of_calls(prepared, call);
}

// The only output; fails the test when the node does.
inline Tensor output_of(const NodeCall& call) {
  auto result = run_node(call);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result.ok() ? (*result)[0] : Tensor();
}

}  // namespace sprun::graph::testing_support
