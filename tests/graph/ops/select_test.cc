#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::run_op;
using testing_support::values;

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<int64_t> top_k_indices(const std::vector<float>& x, int64_t k, int64_t largest) {
  const auto y =
      run_op({.op = "TopK",
              .inputs = {make_tensor<float>({static_cast<int64_t>(x.size())}, x), make_tensor<int64_t>({1}, {k})},
              .attrs = {{"largest", largest}},
              .num_outputs = 2});
  return y.ok() ? values<int64_t>((*y)[1]) : std::vector<int64_t>{-1};
}

TEST(TopK, OrdersTiesByIndexAndNanAsLargest) {
  EXPECT_EQ(top_k_indices({1, 3, 3, 2, 3}, 4, 1), (std::vector<int64_t>{1, 2, 4, 3}));
  EXPECT_EQ(top_k_indices({2, 1, 1, 1}, 2, 0), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(top_k_indices({kInf, NAN, -kInf, NAN, 0}, 3, 1), (std::vector<int64_t>{1, 3, 0}));
  EXPECT_EQ(top_k_indices({kInf, NAN, -kInf, NAN, 0}, 5, 0), (std::vector<int64_t>{2, 4, 0, 1, 3}));
  EXPECT_EQ(top_k_indices({-0.0F, 0.0F}, 2, 1), (std::vector<int64_t>{0, 1}));
}

TEST(TopK, TakesFromNothingToEverything) {
  EXPECT_TRUE(top_k_indices({1, 2}, 0, 1).empty());
  EXPECT_TRUE(top_k_indices({}, 0, 1).empty());
  for (const int64_t k : {int64_t{3}, int64_t{-1}, std::numeric_limits<int64_t>::max()}) {
    EXPECT_EQ(top_k_indices({1, 2}, k, 1), std::vector<int64_t>{-1});
  }
  std::vector<float> many(1000);
  for (size_t i = 0; i < many.size(); ++i) many[i] = static_cast<float>(i * 37 % 1000);
  const auto few = top_k_indices(many, 3, 1), all = top_k_indices(many, 1000, 1);
  EXPECT_TRUE(std::equal(few.begin(), few.end(), all.begin()));
}

TEST(NonZero, ScalarsHaveNoCoordinates) {
  const auto y = run_op({.op = "NonZero", .inputs = {make_tensor<float>({}, {2})}});
  ASSERT_TRUE(y.ok());
  EXPECT_EQ((*y)[0].shape(), (Shape{0, 1}));
  const auto z = run_op({.op = "NonZero", .inputs = {make_tensor<float>({3}, {-0.0F, NAN, 1})}});
  EXPECT_EQ(values<int64_t>((*z)[0]), (std::vector<int64_t>{1, 2}));
}

TEST(Compress, IgnoresConditionsBehindTheEnd) {
  const auto y =
      run_op({.op = "Compress",
              .inputs = {make_tensor<int32_t>({2}, {5, 6}), make_tensor<uint8_t>({4}, {0, 1, 1, 1}, DType::kBool)}});
  ASSERT_TRUE(y.ok());
  EXPECT_EQ(values<int32_t>((*y)[0]), std::vector<int32_t>{6});
  EXPECT_FALSE(
      run_op({.op = "Compress", .inputs = {make_tensor<int32_t>({1}, {5}), make_tensor<uint8_t>({1}, {1})}}).ok());
}

TEST(ReverseSequence, RefusesLengthsOutOfRange) {
  const auto reverse = [](int64_t length) {
    return run_op({.op = "ReverseSequence",
                   .inputs = {make_tensor<int32_t>({3, 1}, {1, 2, 3}), make_tensor<int64_t>({1}, {length})}});
  };
  EXPECT_EQ(values<int32_t>((*reverse(2))[0]), (std::vector<int32_t>{2, 1, 3}));
  EXPECT_EQ(values<int32_t>((*reverse(0))[0]), (std::vector<int32_t>{1, 2, 3}));
  EXPECT_FALSE(reverse(4).ok());
  EXPECT_FALSE(reverse(-1).ok());
}

TEST(Unique, TreatsNanAsOneValue) {
  const auto y = run_op({.op = "Unique", .inputs = {make_tensor<float>({5}, {NAN, 1, NAN, 0, 1})}, .num_outputs = 4});
  ASSERT_TRUE(y.ok()) << y.status().message();
  const auto distinct = values<float>((*y)[0]);
  ASSERT_EQ(distinct.size(), 3u);
  EXPECT_TRUE(distinct[0] == 0 && distinct[1] == 1 && std::isnan(distinct[2]));
  EXPECT_EQ(values<int64_t>((*y)[1]), (std::vector<int64_t>{3, 1, 0}));
  EXPECT_EQ(values<int64_t>((*y)[2]), (std::vector<int64_t>{2, 1, 2, 0, 1}));
  EXPECT_EQ(values<int64_t>((*y)[3]), (std::vector<int64_t>{1, 2, 2}));
}

TEST(Unique, HandlesEmptyInputs) {
  const auto y =
      run_op({.op = "Unique", .inputs = {Tensor::zeros(DType::kF32, {0, 2}).value()}, .attrs = {{"axis", int64_t{0}}}});
  ASSERT_TRUE(y.ok());
  EXPECT_EQ((*y)[0].shape(), (Shape{0, 2}));
  EXPECT_FALSE(run_op({.op = "Unique",
                       .inputs = {Tensor::zeros(DType::kF32, {int64_t{1} << 38, 0}).value()},
                       .attrs = {{"axis", int64_t{0}}}})
                   .ok());
}

}  // namespace
}  // namespace sprun::graph
