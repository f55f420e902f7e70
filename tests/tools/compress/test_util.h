// Helpers for tests of the compressor: random matrices, statistics of an input, small graphs.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ops/op.h"
#include "tools/compress/calibration.h"
#include "tools/compress/input_statistics.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

inline Matrix random_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<double> normal;
  Matrix m(rows, cols);
  for (int64_t i = 0; i < m.size(); ++i) m.data()[i] = normal(rng);
  return m;
}

// Rows with correlated columns of different sizes, as activations have.
inline Matrix random_inputs(int64_t rows, int64_t k, uint64_t seed) {
  const Matrix mix = random_matrix(k, k, seed + 1);
  Matrix x = random_matrix(rows, k, seed) *
             (Matrix::Identity(k, k) + 0.3 * mix / std::sqrt(static_cast<double>(k)));
  for (int64_t j = 0; j < k; ++j) x.col(j) *= 0.2 + 0.1 * static_cast<double>(j % 17);
  return x;
}

inline InputStatistics statistics_of(const Matrix& x) {
  InputStatistics statistics(x.cols());
  const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> gram =
      (x.transpose() * x).cast<float>();
  statistics.add(x.rows(), gram.data(), static_cast<float>(x.minCoeff()),
                 static_cast<float>(x.maxCoeff()));
  return statistics;
}

inline Tensor tensor_of(const Matrix& m) {
  Tensor t = Tensor::allocate(DType::kF32, Shape{m.rows(), m.cols()}).value();
  auto* data = static_cast<float*>(t.mutable_view().data);
  for (int64_t i = 0; i < m.size(); ++i) data[i] = static_cast<float>(m.data()[i]);
  return t;
}

inline Matrix matrix_of(const Tensor& t) {
  const int64_t cols = t.shape().back();
  Matrix m(t.num_elements() / cols, cols);
  for (int64_t i = 0; i < m.size(); ++i) m.data()[i] = double{t.as<float>()[i]};
  return m;
}

inline graph::ValueId add_op(graph::Graph& g, const std::string& op,
                             std::vector<graph::ValueId> inputs, const std::string& name) {
  const graph::NodeId n = g.add_node("", op, 13, std::move(inputs), {name + "_out"});
  g.node(n).name = name;
  g.node(n).def = graph::find_op("", op, 13);
  return g.node(n).outputs[0];
}

// y = W2 relu(W1 x) + x W3 with inputs x[batch, 24]; layers "first", "second", "side".
inline graph::Graph small_graph(uint64_t seed) {
  graph::Graph g;
  const auto x =
      g.add_input("x", DType::kF32, std::vector<graph::DimInfo>{{-1, "batch"}, {24, ""}});
  const auto w1 = g.add_constant("w1", tensor_of(random_matrix(24, 40, seed)));
  const auto w2 = g.add_constant("w2", tensor_of(random_matrix(40, 16, seed + 1)));
  const auto w3 = g.add_constant("w3", tensor_of(random_matrix(24, 16, seed + 2)));
  const auto hidden = add_op(g, "Relu", {add_op(g, "MatMul", {x, w1}, "first")}, "relu");
  const auto main = add_op(g, "MatMul", {hidden, w2}, "second");
  const auto side = add_op(g, "MatMul", {x, w3}, "side");
  g.set_outputs({add_op(g, "Tanh", {add_op(g, "Add", {main, side}, "sum")}, "tanh")});
  return g;
}

inline Calibration small_calibration(int64_t batches, int64_t rows, uint64_t seed) {
  Calibration calibration;
  for (int64_t b = 0; b < batches; ++b) {
    const Matrix x = random_inputs(rows, 24, seed + 10 * static_cast<uint64_t>(b));
    calibration.batches.push_back({{tensor_of(x)}, rows});
  }
  calibration.held_out.push_back({{tensor_of(random_inputs(rows, 24, seed + 1000))}, rows});
  calibration.source = "test";
  return calibration;
}

}  // namespace sprun::compress
