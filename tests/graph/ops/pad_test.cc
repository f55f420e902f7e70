#include <gtest/gtest.h>

#include <limits>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::run_op;
using testing_support::values;

// [1, 2, 3] padded along its only axis; empty if refused.
std::vector<int32_t> pad_three(const std::string& mode, int64_t begin, int64_t end) {
  const auto y = run_op({.op = "Pad",
                         .inputs = {make_tensor<int32_t>({3}, {1, 2, 3}), make_tensor<int64_t>({2}, {begin, end}),
                                    make_tensor<int32_t>({}, {9})},
                         .attrs = {{"mode", mode}}});
  return y.ok() ? values<int32_t>((*y)[0]) : std::vector<int32_t>{};
}

TEST(Pad, PadsFurtherThanTheInputIsLong) {
  EXPECT_EQ(pad_three("constant", 2, 1), (std::vector<int32_t>{9, 9, 1, 2, 3, 9}));
  EXPECT_EQ(pad_three("edge", 2, 1), (std::vector<int32_t>{1, 1, 1, 2, 3, 3}));
  EXPECT_EQ(pad_three("reflect", 5, 2), (std::vector<int32_t>{2, 1, 2, 3, 2, 1, 2, 3, 2, 1}));
  EXPECT_EQ(pad_three("wrap", 4, 2), (std::vector<int32_t>{3, 1, 2, 3, 1, 2, 3, 1, 2}));
}

TEST(Pad, CropsWithNegativePads) {
  EXPECT_EQ(pad_three("constant", -1, 1), (std::vector<int32_t>{2, 3, 9}));
  EXPECT_EQ(pad_three("edge", 1, -2), (std::vector<int32_t>{1, 1}));
  EXPECT_EQ(pad_three("reflect", -1, 1), (std::vector<int32_t>{2, 3, 2}));
  EXPECT_EQ(pad_three("constant", -3, 2), (std::vector<int32_t>{9, 9}));
}

TEST(Pad, RefusesWhatCannotBePadded) {
  EXPECT_TRUE(pad_three("edge", -3, 1).empty());
  EXPECT_TRUE(pad_three("constant", -2, -2).empty());
  EXPECT_TRUE(pad_three("mirror", 1, 1).empty());
  EXPECT_TRUE(pad_three("constant", std::numeric_limits<int64_t>::max(), 1).empty());
  EXPECT_TRUE(pad_three("constant", std::numeric_limits<int64_t>::min(), 1).empty());
  const auto x = make_tensor<int32_t>({3}, {1, 2, 3});
  EXPECT_FALSE(run_op({.op = "Pad", .inputs = {x, make_tensor<int64_t>({3}, {1, 1, 1})}}).ok());
  EXPECT_FALSE(
      run_op({.op = "Pad", .inputs = {x, make_tensor<int64_t>({2}, {1, 1}), make_tensor<float>({}, {1})}}).ok());
}

TEST(Pad, OldVersionsTakeAttributes) {
  const auto y = run_op({.op = "Pad",
                         .opset = 10,
                         .inputs = {make_tensor<float>({1, 2}, {1, 2})},
                         .attrs = {{"pads", std::vector<int64_t>{1, 0, 0, 1}}, {"value", 0.5F}}});
  ASSERT_TRUE(y.ok()) << y.status().message();
  EXPECT_EQ(values<float>((*y)[0]), (std::vector<float>{0.5F, 0.5F, 0.5F, 1, 2, 0.5F}));
}

TEST(CenterCropPad, PutsTheOddElementAtTheEnd) {
  const auto resize = [](int64_t size) {
    const auto y = run_op({.op = "CenterCropPad",
                           .inputs = {make_tensor<int32_t>({4}, {1, 2, 3, 4}), make_tensor<int64_t>({1}, {size})}});
    return y.ok() ? values<int32_t>((*y)[0]) : std::vector<int32_t>{-1};
  };
  EXPECT_EQ(resize(1), (std::vector<int32_t>{2}));
  EXPECT_EQ(resize(2), (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(resize(7), (std::vector<int32_t>{0, 1, 2, 3, 4, 0, 0}));
  EXPECT_EQ(resize(0), (std::vector<int32_t>{}));
  EXPECT_EQ(resize(-1), (std::vector<int32_t>{-1}));
}

}  // namespace
}  // namespace sprun::graph
