#include <gtest/gtest.h>

#include <limits>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::output_values;
using testing_support::run_op;

Tensor ints(const std::vector<int64_t>& list) {
  return make_tensor<int64_t>({static_cast<int64_t>(list.size())}, list);
}

TEST(Transpose, ReversesAxesByDefault) {
  EXPECT_EQ(output_values<uint8_t>({.op = "Transpose", .inputs = {make_tensor<uint8_t>({2, 3}, {0, 1, 2, 3, 4, 5})}}),
            (std::vector<uint8_t>{0, 3, 1, 4, 2, 5}));
}

TEST(Transpose, RefusesWhatIsNoPermutation) {
  for (const std::vector<int64_t>& perm : std::vector<std::vector<int64_t>>{{0, 0}, {0}, {0, 2}, {0, 1, 2}, {-3, 0}}) {
    EXPECT_FALSE(
        run_op({.op = "Transpose", .inputs = {make_tensor<float>({2, 2}, {0, 1, 2, 3})}, .attrs = {{"perm", perm}}})
            .ok());
  }
}

TEST(Transpose, HandlesEmptyTensorsAndScalars) {
  const auto empty = run_op({.op = "Transpose", .inputs = {Tensor::zeros(DType::kF32, {3, 0, 2}).value()}});
  ASSERT_TRUE(empty.ok());
  EXPECT_EQ((*empty)[0].shape(), (Shape{2, 0, 3}));
  EXPECT_EQ(output_values<float>({.op = "Transpose", .inputs = {make_tensor<float>({}, {5})}}), std::vector<float>{5});
}

TEST(DepthToSpace, RefusesBadBlocks) {
  const auto ok = [](const char* op, const Shape& shape, int64_t block) {
    return run_op({.op = op, .inputs = {Tensor::zeros(DType::kF32, shape).value()}, .attrs = {{"blocksize", block}}})
        .ok();
  };
  EXPECT_TRUE(ok("DepthToSpace", {1, 8, 1, 1}, 2));
  EXPECT_FALSE(ok("DepthToSpace", {1, 6, 1, 1}, 2));
  EXPECT_TRUE(ok("SpaceToDepth", {1, 1, 4, 2}, 2));
  EXPECT_FALSE(ok("SpaceToDepth", {1, 1, 4, 3}, 2));
  for (const char* op : {"DepthToSpace", "SpaceToDepth"}) {
    EXPECT_FALSE(ok(op, {8, 4, 4}, 2));
    for (const int64_t block : {int64_t{0}, int64_t{-2}, int64_t{1} << 40, std::numeric_limits<int64_t>::max()}) {
      EXPECT_FALSE(ok(op, {1, 0, 0, 0}, block));
    }
  }
}

TEST(SpaceToDepth, HasColumnRowDepthModeToo) {
  const auto x = make_tensor<int32_t>({1, 2, 2, 2}, {0, 1, 2, 3, 4, 5, 6, 7});
  const auto y = [&](const std::string& mode) {
    return output_values<int32_t>(
        {.op = "SpaceToDepth", .inputs = {x}, .attrs = {{"blocksize", int64_t{2}}, {"mode", mode}}});
  };
  EXPECT_EQ(y("DCR"), (std::vector<int32_t>{0, 4, 1, 5, 2, 6, 3, 7}));
  EXPECT_EQ(y("CRD"), (std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(Expand, BroadcastsBothWays) {
  EXPECT_EQ(output_values<int32_t>({.op = "Expand", .inputs = {make_tensor<int32_t>({2, 1}, {3, 4}), ints({2})}}),
            (std::vector<int32_t>{3, 3, 4, 4}));
  EXPECT_TRUE(run_op({.op = "Expand", .inputs = {make_tensor<int32_t>({1}, {3}), ints({0, 2})}}).ok());
  EXPECT_FALSE(run_op({.op = "Expand", .inputs = {make_tensor<int32_t>({3}, {1, 2, 3}), ints({2})}}).ok());
  EXPECT_FALSE(run_op({.op = "Expand", .inputs = {make_tensor<int32_t>({1}, {1}), ints({-1})}}).ok());
  EXPECT_EQ(
      run_op({.op = "Expand", .inputs = {make_tensor<int32_t>({1}, {1}), ints({1 << 30, 1 << 30})}}).status().code(),
      Code::kResourceLimit);
}

TEST(Tile, RepeatsEveryAxis) {
  EXPECT_EQ(output_values<int8_t>({.op = "Tile", .inputs = {make_tensor<int8_t>({2, 2}, {1, 2, 3, 4}), ints({2, 2})}}),
            (std::vector<int8_t>{1, 2, 1, 2, 3, 4, 3, 4, 1, 2, 1, 2, 3, 4, 3, 4}));
  EXPECT_TRUE(run_op({.op = "Tile", .inputs = {make_tensor<int8_t>({2, 2}, {1, 2, 3, 4}), ints({0, 2})}}).ok());
  for (const auto& repeats : {ints({1}), ints({1, -1}), ints({std::numeric_limits<int64_t>::max(), 2})}) {
    EXPECT_FALSE(run_op({.op = "Tile", .inputs = {make_tensor<int8_t>({2, 2}, {1, 2, 3, 4}), repeats}}).ok());
  }
}

}  // namespace
}  // namespace sprun::graph
