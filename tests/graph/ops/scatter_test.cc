#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::output_values;
using testing_support::run_op;
using testing_support::values;

testing_support::OpCall scatter(const std::string& reduction, const Tensor& data, const Tensor& updates,
                                std::vector<int64_t> indices = {1, -1}) {
  return {.op = "ScatterElements",
          .inputs = {data, make_tensor<int64_t>({static_cast<int64_t>(indices.size())}, indices), updates},
          .attrs = {{"reduction", reduction}}};
}

TEST(ScatterElements, ReducesEveryHitOfTheSameElement) {
  const auto data = make_tensor<float>({2}, {1, 3});
  const auto updates = make_tensor<float>({2}, {2, 5});
  EXPECT_EQ(output_values<float>(scatter("add", data, updates)), (std::vector<float>{1, 10}));
  EXPECT_EQ(output_values<float>(scatter("mul", data, updates)), (std::vector<float>{1, 30}));
  EXPECT_EQ(output_values<float>(scatter("max", data, updates)), (std::vector<float>{1, 5}));
  EXPECT_EQ(output_values<float>(scatter("min", data, updates)), (std::vector<float>{1, 2}));
  EXPECT_EQ(output_values<float>(scatter("none", data, updates)), (std::vector<float>{1, 5}));
  EXPECT_FALSE(run_op(scatter("xor", data, updates)).ok());
}

TEST(ScatterElements, WrapsIntegersAndKeepsNan) {
  const auto bytes = make_tensor<int8_t>({2}, {0, 127});
  EXPECT_EQ(output_values<int8_t>(scatter("add", bytes, make_tensor<int8_t>({2}, {1, 1}))),
            (std::vector<int8_t>{0, -127}));
  const auto y =
      output_values<float>(scatter("max", make_tensor<float>({2}, {0, 1}), make_tensor<float>({2}, {NAN, 7})));
  EXPECT_TRUE(std::isnan(y[1]));
  const auto flags = make_tensor<uint8_t>({2}, {0, 1}, DType::kBool);
  EXPECT_EQ(output_values<uint8_t>(scatter("mul", flags, make_tensor<uint8_t>({2}, {1, 0}, DType::kBool))),
            (std::vector<uint8_t>{0, 0}));
}

TEST(ScatterElements, ChecksBeforeItWrites) {
  const auto data = make_tensor<float>({2}, {1, 3});
  auto call = scatter("none", data, make_tensor<float>({2}, {8, 9}), {0, 2});
  call.in_place = true;
  const auto result = run_op(call);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), Code::kBadInput);
  EXPECT_NE(result.status().message().find("index 2"), std::string::npos);
  EXPECT_EQ(values<float>(data), (std::vector<float>{1, 3}));
  EXPECT_FALSE(run_op(scatter("none", data, make_tensor<float>({3}, {1, 2, 3}))).ok());
  EXPECT_FALSE(run_op(scatter("none", data, make_tensor<int32_t>({2}, {1, 2}))).ok());
}

TEST(ScatterND, WritesSlicesInPlace) {
  const auto data = make_tensor<int32_t>({3, 2}, {0, 1, 2, 3, 4, 5});
  testing_support::OpCall call{
      .op = "ScatterND", .inputs = {data, make_tensor<int64_t>({1, 1}, {-2}), make_tensor<int32_t>({1, 2}, {8, 9})}};
  EXPECT_EQ(output_values<int32_t>(call), (std::vector<int32_t>{0, 1, 8, 9, 4, 5}));
  call.in_place = true;
  EXPECT_EQ(output_values<int32_t>(call), (std::vector<int32_t>{0, 1, 8, 9, 4, 5}));
  call.inputs[1] = make_tensor<int64_t>({1, 1}, {std::numeric_limits<int64_t>::min()});
  EXPECT_EQ(run_op(call).status().code(), Code::kBadInput);
  call.inputs[1] = make_tensor<int64_t>({1, 3}, {0, 0, 0});
  EXPECT_EQ(run_op(call).status().code(), Code::kBadModel);
}

TEST(TensorScatter, WrapsOnlyWhenCircular) {
  const auto write = [](const std::string& mode, int64_t at) {
    return testing_support::OpCall{.op = "TensorScatter",
                                   .inputs = {make_tensor<float>({1, 3, 1}, {1, 2, 3}),
                                              make_tensor<float>({1, 2, 1}, {8, 9}), make_tensor<int64_t>({1}, {at})},
                                   .attrs = {{"mode", mode}}};
  };
  EXPECT_EQ(output_values<float>(write("linear", 1)), (std::vector<float>{1, 8, 9}));
  EXPECT_EQ(output_values<float>(write("circular", 5)), (std::vector<float>{9, 2, 8}));
  EXPECT_FALSE(run_op(write("linear", 2)).ok());
  EXPECT_FALSE(run_op(write("linear", std::numeric_limits<int64_t>::max())).ok());
  EXPECT_FALSE(run_op(write("circular", -1)).ok());
  EXPECT_TRUE(run_op(write("circular", std::numeric_limits<int64_t>::max())).ok());
}

}  // namespace
}  // namespace sprun::graph
