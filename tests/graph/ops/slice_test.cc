#include <gtest/gtest.h>

#include <limits>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::run_op;
using testing_support::values;

constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();

Tensor ints(const std::vector<int64_t>& list) {
  return make_tensor<int64_t>({static_cast<int64_t>(list.size())}, list);
}

// [0, 1, 2, 3, 4][start : end : step]
Result<std::vector<Tensor>> slice_five(int64_t start, int64_t end, int64_t step) {
  return run_op(
      {.op = "Slice",
       .inputs = {make_tensor<int32_t>({5}, {0, 1, 2, 3, 4}), ints({start}), ints({end}), ints({0}), ints({step})}});
}

TEST(Slice, ClampsExtremeBounds) {
  EXPECT_EQ(values<int32_t>((*slice_five(kMin, kMax, 1))[0]), (std::vector<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(values<int32_t>((*slice_five(kMax, kMin, -1))[0]), (std::vector<int32_t>{4, 3, 2, 1, 0}));
  EXPECT_EQ(values<int32_t>((*slice_five(-2, kMax, 1))[0]), (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(values<int32_t>((*slice_five(0, kMax, kMax))[0]), (std::vector<int32_t>{0}));
  EXPECT_EQ(values<int32_t>((*slice_five(kMax, kMin, kMin))[0]), (std::vector<int32_t>{4}));
  EXPECT_EQ((*slice_five(4, 1, 1))[0].shape(), Shape{0});
  EXPECT_EQ((*slice_five(1, 4, -1))[0].shape(), Shape{0});
}

TEST(Slice, HandlesEmptyAxes) {
  const auto result = run_op({.op = "Slice",
                              .inputs = {Tensor::zeros(DType::kF32, {0, 3}).value(), ints({-1, 2}), ints({kMin, kMin}),
                                         ints({0, 1}), ints({-1, -2})}});
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ((*result)[0].shape(), (Shape{0, 2}));
}

TEST(Slice, ReadsAttributesOfOldVersions) {
  const auto result = run_op({.op = "Slice",
                              .opset = 9,
                              .inputs = {make_tensor<int32_t>({2, 3}, {0, 1, 2, 3, 4, 5})},
                              .attrs = {{"starts", std::vector<int64_t>{1}},
                                        {"ends", std::vector<int64_t>{-1}},
                                        {"axes", std::vector<int64_t>{1}}}});
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(values<int32_t>((*result)[0]), (std::vector<int32_t>{1, 4}));
}

TEST(Slice, RefusesBadParameters) {
  EXPECT_FALSE(slice_five(0, 5, 0).ok());
  const auto with = [](const Tensor& starts, const Tensor& ends, const Tensor& axes) {
    return run_op({.op = "Slice", .inputs = {make_tensor<int32_t>({5}, {0, 1, 2, 3, 4}), starts, ends, axes}}).ok();
  };
  EXPECT_TRUE(with(ints({1}), ints({2}), Tensor()));
  EXPECT_FALSE(with(ints({1}), ints({2, 3}), Tensor()));
  EXPECT_FALSE(with(ints({1}), ints({2}), ints({1})));
  EXPECT_FALSE(with(ints({1, 1}), ints({2, 2}), ints({0, -1})));
  EXPECT_FALSE(with(make_tensor<float>({1}, {1}), ints({2}), Tensor()));
  EXPECT_FALSE(with(ints(std::vector<int64_t>(100, 0)), ints(std::vector<int64_t>(100, 0)), Tensor()));
}

}  // namespace
}  // namespace sprun::graph
