#include "tools/sprun/weights.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace sprun::tools {
namespace {

using graph::Graph;

template <class T>
Tensor tensor(const std::vector<T>& values, const Shape& shape) {
  Tensor t = Tensor::zeros(dtype_of<T>(), shape).value();
  std::memcpy(t.mutable_view().data, values.data(), values.size() * sizeof(T));
  return t;
}

TEST(LinearWeights, CountsZerosOfMatMulButNotOfTables) {
  Graph g;
  const auto x = g.add_input("x", DType::kF32, {});
  const auto w = g.add_constant("w", tensor<float>({0, -0.F, 1, 2}, {2, 2}));
  const auto table = g.add_constant("table", tensor<float>({0, 0}, {2, 1}));
  g.add_node("", "MatMul", 13, {x, w}, {"y"});
  g.add_node("", "Gather", 13, {table, x}, {"z"});
  const auto weights = linear_weights(g);
  ASSERT_EQ(weights.size(), 1U);
  EXPECT_EQ(weights[0].name, "w");
  EXPECT_EQ(weights[0].zeros, 2);
}

TEST(LinearWeights, ZeroIsTheZeroPointOfAQuantisedWeight) {
  Graph g;
  const auto x = g.add_input("x", DType::kF32, {});
  const auto w = g.add_constant("w", tensor<uint8_t>({128, 0, 7, 128}, {2, 2}));
  const auto scale = g.add_constant("scale", tensor<float>({1, 1}, {2}));
  const auto zero = g.add_constant("zero", tensor<uint8_t>({128, 7}, {2}));
  const auto dq = g.add_node("", "DequantizeLinear", 13, {w, scale, zero}, {"dq"});
  g.add_node("", "MatMul", 13, {x, g.node(dq).outputs[0]}, {"y"});
  const auto weights = linear_weights(g);
  ASSERT_EQ(weights.size(), 1U);
  EXPECT_EQ(weights[0].zeros, 1);  // column 0: 128 and 7 against 128; column 1: 0 and 128 against 7
}

TEST(LinearWeights, MatMulIntegerHasItsZeroPointAsAnInput) {
  Graph g;
  const auto x = g.add_input("x", DType::kU8, {});
  const auto w = g.add_constant("w", tensor<int8_t>({3, 3, 3, 0}, {2, 2}));
  const auto a_zero = g.add_constant("a_zero", tensor<uint8_t>({1}, {}));
  const auto w_zero = g.add_constant("w_zero", tensor<int8_t>({3}, {}));
  g.add_node("", "MatMulInteger", 10, {x, w, a_zero, w_zero}, {"y"});
  EXPECT_EQ(linear_weights(g).at(0).zeros, 3);
}

}  // namespace
}  // namespace sprun::tools
