#include "tools/sprun/fill.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace sprun::tools {
namespace {

Tensor filled(const std::string& name, DType dtype, const Shape& shape, const FillOptions& options) {
  return fill_tensor({.name = name, .dtype = dtype, .has_shape = true, .dims = {}}, shape, options).value();
}

TEST(Fill, IdsStayInsideTheTable) {
  const Tensor ids = filled("input_ids", DType::kS64, {1000}, {.limits = {{"input_ids", 7}}});
  bool seen[7] = {};
  for (int64_t i = 0; i < 1000; ++i) {
    ASSERT_GE(ids.as<int64_t>()[i], 0);
    ASSERT_LT(ids.as<int64_t>()[i], 7);
    seen[ids.as<int64_t>()[i]] = true;
  }
  for (bool s : seen) EXPECT_TRUE(s);
}

TEST(Fill, KnowsCommonInputsByName) {
  EXPECT_EQ(filled("attention_mask", DType::kF32, {2}, {}).as<float>()[1], 1);
  EXPECT_EQ(filled("token_type_ids", DType::kS32, {2}, {}).as<int32_t>()[1], 0);
  const Tensor positions = filled("position_ids", DType::kS64, {2, 3}, {});
  EXPECT_EQ(std::vector<int64_t>(positions.as<int64_t>(), positions.as<int64_t>() + 6),
            (std::vector<int64_t>{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(filled("seqlens_k", DType::kS32, {1}, {.total_length = 12}).as<int32_t>()[0], 11);
}

TEST(Fill, FloatsAreNormalAndReproducible) {
  const Tensor a = filled("x", DType::kF32, {4000}, {.seed = 3});
  const Tensor b = filled("x", DType::kF32, {4000}, {.seed = 3});
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < 4000; ++i) {
    ASSERT_EQ(a.as<float>()[i], b.as<float>()[i]);
    sum += a.as<float>()[i];
    squares += a.as<float>()[i] * a.as<float>()[i];
  }
  EXPECT_NEAR(sum / 4000, 0, 0.1);
  EXPECT_NEAR(squares / 4000, 1, 0.1);
  EXPECT_NE(filled("y", DType::kF32, {1}, {.seed = 3}).as<float>()[0], a.as<float>()[0]);
  EXPECT_NE(filled("x", DType::kF32, {1}, {.seed = 4}).as<float>()[0], a.as<float>()[0]);
}

TEST(Fill, ZerosAndOnesAreLiteral) {
  EXPECT_EQ(filled("x", DType::kU8, {1}, {.fill = Fill::kOnes}).as<uint8_t>()[0], 1);
  EXPECT_EQ(filled("attention_mask", DType::kS64, {1}, {.fill = Fill::kZeros}).as<int64_t>()[0], 0);
}

TEST(Fill, RefusesStrings) {
  EXPECT_FALSE(fill_tensor({.name = "s", .dtype = DType::kString, .has_shape = true, .dims = {}}, {1}, {}).ok());
}

TEST(IndexLimits, FollowsAnInputToTheSmallestTable) {
  graph::Graph g;
  const auto ids = g.add_input("ids", DType::kS64, {});
  const auto other = g.add_input("other", DType::kS64, {});
  const auto big = g.add_constant("big", Tensor::zeros(DType::kF32, {50, 4}).value());
  const auto small = g.add_constant("small", Tensor::zeros(DType::kF32, {20, 4}).value());
  const auto cast = g.add_node("", "Cast", 13, {ids}, {"cast"});
  g.add_node("", "Gather", 13, {big, ids}, {"y"});
  g.add_node("", "Gather", 13, {small, g.node(cast).outputs[0]}, {"z"});
  const auto limits = index_limits(g);
  EXPECT_EQ(limits.at("ids"), 20);
  EXPECT_FALSE(limits.contains("other"));
  EXPECT_EQ(g.value(other).name, "other");
}

}  // namespace
}  // namespace sprun::tools
