#include <gtest/gtest.h>

#include <limits>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::run_op;
using testing_support::values;

const auto kData = [] { return make_tensor<int32_t>({3, 2}, {0, 1, 2, 3, 4, 5}); };

class GatherFamily : public testing::TestWithParam<const char*> {};

TEST_P(GatherFamily, RefusesIndicesOutOfRange) {
  const std::string op = GetParam();
  const auto with = [&](int64_t index) {
    const Shape shape = op == "GatherElements" ? Shape{1, 1} : op == "GatherND" ? Shape{1, 1} : Shape{1};
    return run_op({.op = op, .inputs = {kData(), make_tensor<int64_t>(shape, {index})}});
  };
  for (const int64_t good : {-3, 0, 2}) EXPECT_TRUE(with(good).ok()) << good;
  for (const int64_t bad :
       {int64_t{3}, int64_t{-4}, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}) {
    const auto result = with(bad);
    ASSERT_FALSE(result.ok()) << bad;
    EXPECT_EQ(result.status().code(), Code::kBadInput);
    EXPECT_NE(result.status().message().find("index " + std::to_string(bad)), std::string::npos);
    EXPECT_NE(result.status().message().find("axis 0"), std::string::npos);
  }
  EXPECT_FALSE(run_op({.op = op, .inputs = {kData(), make_tensor<float>({1, 1}, {0})}}).ok());
}

INSTANTIATE_TEST_SUITE_P(Ops, GatherFamily, testing::Values("Gather", "GatherElements", "GatherND"));

TEST(Gather, MovesEveryElementSizeAndIndexType) {
  for (const DType dtype : {DType::kU8, DType::kF16, DType::kF32, DType::kS64}) {
    Tensor data = Tensor::zeros(dtype, {4, 3}).value();
    for (int64_t i = 0; i < 12; ++i) {
      data.mutable_view().as<char>()[i * dtype_size(dtype)] = static_cast<char>(i);
    }
    for (const int64_t axis : {0, 1}) {
      const auto y =
          run_op({.op = "Gather", .inputs = {data, make_tensor<int32_t>({2}, {-1, 0})}, .attrs = {{"axis", axis}}});
      ASSERT_TRUE(y.ok()) << y.status().message();
      const char* bytes = (*y)[0].as<char>();
      EXPECT_EQ(bytes[0], axis == 0 ? 9 : 2);
      EXPECT_EQ(bytes[dtype_size(dtype)], axis == 0 ? 10 : 0);
    }
  }
}

TEST(Gather, KnowsEmptyTensors) {
  const auto no_indices = run_op({.op = "Gather", .inputs = {kData(), make_tensor<int64_t>({0}, {})}});
  ASSERT_TRUE(no_indices.ok());
  EXPECT_EQ((*no_indices)[0].shape(), (Shape{0, 2}));
  EXPECT_FALSE(
      run_op({.op = "Gather", .inputs = {Tensor::zeros(DType::kF32, {0, 2}).value(), make_tensor<int64_t>({1}, {0})}})
          .ok());
  EXPECT_FALSE(run_op({.op = "Gather", .inputs = {make_tensor<float>({}, {1}), make_tensor<int64_t>({1}, {0})}}).ok());
}

TEST(GatherND, RefusesShapesThatDoNotFit) {
  const auto ok = [](const Shape& indices, int64_t batch_dims) {
    return run_op({.op = "GatherND",
                   .inputs = {kData(), Tensor::zeros(DType::kS64, indices).value()},
                   .attrs = {{"batch_dims", batch_dims}}})
        .ok();
  };
  EXPECT_TRUE(ok({3, 1}, 1));
  EXPECT_FALSE(ok({1, 3}, 0));
  EXPECT_FALSE(ok({2, 1}, 1));
  EXPECT_FALSE(ok({3, 1}, 2));
  EXPECT_FALSE(ok({3, 1}, -1));
  EXPECT_FALSE(ok({}, 0));
}

TEST(GatherElements, RefusesIndicesLargerThanTheData) {
  EXPECT_FALSE(run_op({.op = "GatherElements", .inputs = {kData(), Tensor::zeros(DType::kS64, {1, 3}).value()}}).ok());
  EXPECT_FALSE(run_op({.op = "GatherElements", .inputs = {kData(), Tensor::zeros(DType::kS64, {1}).value()}}).ok());
}

}  // namespace
}  // namespace sprun::graph
