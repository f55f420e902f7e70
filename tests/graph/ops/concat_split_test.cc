#include <gtest/gtest.h>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::run_op;
using testing_support::values;

Tensor zeros(const Shape& shape, DType dtype = DType::kF32) { return Tensor::zeros(dtype, shape).value(); }

TEST(Concat, JoinsEmptyParts) {
  const auto y = run_op({.op = "Concat",
                         .inputs = {zeros({1, 2, 0, 4}), make_tensor<float>({1, 2, 1, 4}, {1, 2, 3, 4, 5, 6, 7, 8})},
                         .attrs = {{"axis", int64_t{-2}}}});
  ASSERT_TRUE(y.ok()) << y.status().message();
  EXPECT_EQ((*y)[0].shape(), (Shape{1, 2, 1, 4}));
  EXPECT_EQ(values<float>((*y)[0]), (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(Concat, RefusesPartsThatDoNotFit) {
  const auto ok = [](const Tensor& a, const Tensor& b, int64_t axis) {
    return run_op({.op = "Concat", .inputs = {a, b}, .attrs = {{"axis", axis}}}).ok();
  };
  EXPECT_TRUE(ok(zeros({2, 3}), zeros({4, 3}), 0));
  EXPECT_FALSE(ok(zeros({2, 3}), zeros({4, 3}), 1));
  EXPECT_FALSE(ok(zeros({2, 3}), zeros({2}), 0));
  EXPECT_FALSE(ok(zeros({2, 3}), zeros({2, 3}, DType::kS32), 0));
  EXPECT_FALSE(ok(zeros({2, 3}), zeros({2, 3}), 2));
  EXPECT_FALSE(ok(zeros({}), zeros({}), 0));
  EXPECT_FALSE(run_op({.op = "Concat", .inputs = {zeros({1})}}).ok());
}

// The sizes of the parts along axis 0, or {-1} for an error.
std::vector<int64_t> split_sizes(int opset, int64_t size, int outputs, const Tensor& parts,
                                 std::vector<std::pair<std::string, Attr>> attrs = {}) {
  const auto y = run_op({.op = "Split",
                         .opset = opset,
                         .inputs = {zeros({size, 2}), parts},
                         .attrs = std::move(attrs),
                         .num_outputs = outputs});
  if (!y.ok()) return {-1};
  std::vector<int64_t> sizes;
  for (const Tensor& part : *y) sizes.push_back(part.shape()[0]);
  return sizes;
}

Tensor ints(const std::vector<int64_t>& list) {
  return make_tensor<int64_t>({static_cast<int64_t>(list.size())}, list);
}

TEST(Split, KnowsTheFormsOfEveryVersion) {
  EXPECT_EQ(split_sizes(11, 5, 2, Tensor(), {{"split", std::vector<int64_t>{1, 4}}}), (std::vector<int64_t>{1, 4}));
  EXPECT_EQ(split_sizes(13, 6, 2, Tensor()), (std::vector<int64_t>{3, 3}));
  EXPECT_EQ(split_sizes(13, 5, 2, ints({5, 0})), (std::vector<int64_t>{5, 0}));
  EXPECT_EQ(split_sizes(18, 7, 3, Tensor(), {{"num_outputs", int64_t{3}}}), (std::vector<int64_t>{3, 3, 1}));
  EXPECT_EQ(split_sizes(18, 5, 4, Tensor(), {{"num_outputs", int64_t{4}}}), (std::vector<int64_t>{2, 2, 1, 0}));
}

TEST(Split, RefusesSizesThatDoNotAddUp) {
  const std::vector<int64_t> error = {-1};
  EXPECT_EQ(split_sizes(13, 5, 2, Tensor()), error);
  EXPECT_EQ(split_sizes(13, 5, 2, ints({2, 2})), error);
  EXPECT_EQ(split_sizes(13, 5, 2, ints({6, -1})), error);
  EXPECT_EQ(split_sizes(13, 5, 2, ints({5})), error);
  EXPECT_EQ(split_sizes(18, 6, 2, Tensor(), {{"num_outputs", int64_t{3}}}), error);
}

}  // namespace
}  // namespace sprun::graph
