#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "runtime/base/half.h"
#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::output_values;
using testing_support::run_op;

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Activation, NanStaysNanInEveryFunction) {
  const auto x = make_tensor<float>({2}, {std::nanf(""), 1.0F});
  for (const char* op :
       {"Abs",        "Neg",  "Sign",      "Ceil",     "Floor", "Round", "Sqrt",
        "Reciprocal", "Exp",  "Log",       "Erf",      "Sin",   "Cos",   "Tanh",
        "Sigmoid",    "Relu", "LeakyRelu", "Elu",      "Selu",  "Celu",  "HardSigmoid",
        "HardSwish",  "Mish", "Softplus",  "Softsign", "Gelu",  "Swish", "Clip"}) {
    const auto y = output_values<float>({.op = op, .inputs = {x}});
    ASSERT_EQ(y.size(), 2u) << op;
    EXPECT_TRUE(std::isnan(y[0])) << op;
    EXPECT_FALSE(std::isnan(y[1])) << op;
  }
}

TEST(Activation, SaturatingFunctionsReachTheirLimits) {
  const auto x = make_tensor<float>({4}, {-kInf, -1e30F, 1e30F, kInf});
  const auto of = [&](const char* op) { return output_values<float>({.op = op, .inputs = {x}}); };
  EXPECT_EQ(of("Sigmoid"), (std::vector<float>{0, 0, 1, 1}));
  const std::vector<float> tanh = of("Tanh");
  const std::vector<float> erf = of("Erf");
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(tanh[i], i < 2 ? -1.0F : 1.0F);
    EXPECT_FLOAT_EQ(erf[i], i < 2 ? -1.0F : 1.0F);
  }
  EXPECT_EQ(of("Exp"), (std::vector<float>{0, 0, kInf, kInf}));
  EXPECT_EQ(of("HardSigmoid"), (std::vector<float>{0, 0, 1, 1}));
  EXPECT_EQ(of("Softplus"), (std::vector<float>{0, 0, 1e30F, kInf}));
  EXPECT_EQ(of("Elu"), (std::vector<float>{-1, -1, 1e30F, kInf}));
}

TEST(Activation, GeluKeepsSmallTails) {
  const std::vector<float> x = {-5.0F, -4.5F, -3.0F, -1.0F, -1e-3F, 1e-3F, 2.0F};
  const auto y = output_values<float>({.op = "Gelu", .inputs = {make_tensor<float>({7}, x)}});
  ASSERT_EQ(y.size(), 7u);
  for (size_t i = 0; i < 7; ++i) {
    const double want = 0.5 * x[i] * std::erfc(-x[i] * M_SQRT1_2);
    EXPECT_NEAR(y[i], want, 1e-4 * std::fabs(want) + 1e-8) << x[i];
  }
}

TEST(Activation, ClipTakesBoundsOfEveryOpset) {
  const auto x = make_tensor<float>({3}, {-kInf, 0.5F, kInf});
  EXPECT_EQ(output_values<float>({.op = "Clip", .inputs = {x}}),
            (std::vector<float>{-kInf, 0.5F, kInf}));
  EXPECT_EQ(
      output_values<float>({.op = "Clip", .opset = 6, .inputs = {x}, .attrs = {{"max", 1.0F}}}),
      (std::vector<float>{-kInf, 0.5F, 1}));
  EXPECT_EQ(output_values<float>({.op = "Clip", .inputs = {x, {}, make_tensor<float>({}, {0})}}),
            (std::vector<float>{-kInf, 0, 0}));
  EXPECT_FALSE(run_op({.op = "Clip", .inputs = {x, make_tensor<float>({2}, {0, 1})}}).ok());
  EXPECT_FALSE(run_op({.op = "Clip", .inputs = {x, make_tensor<double>({}, {0})}}).ok());
  EXPECT_FALSE(run_op({.op = "Clip", .inputs = {x, make_tensor<float>({0}, {})}}).ok());
}

TEST(Activation, BiasedGeluNeedsABiasOfTheLastAxis) {
  const auto x = make_tensor<float>({2, 3}, {-1, 0, 1, 2, 3, 4});
  const auto bias = make_tensor<float>({3}, {1, 0, -1});
  const auto y = output_values<float>(
      {.op = "BiasGelu", .opset = 1, .inputs = {x, bias}, .domain = "com.microsoft"});
  const auto sum = make_tensor<float>({2, 3}, {0, 0, 0, 3, 3, 3});
  EXPECT_EQ(y, output_values<float>({.op = "Gelu", .inputs = {sum}}));
  EXPECT_FALSE(run_op({.op = "BiasGelu",
                       .opset = 1,
                       .inputs = {x, make_tensor<float>({2}, {1, 2})},
                       .domain = "com.microsoft"})
                   .ok());
  EXPECT_FALSE(run_op({.op = "FastGelu",
                       .opset = 1,
                       .inputs = {make_tensor<float>({}, {1}), make_tensor<float>({1}, {1})},
                       .domain = "com.microsoft"})
                   .ok());
  // One column: the bias is one value.
  const auto column = output_values<float>(
      {.op = "FastGelu",
       .opset = 1,
       .inputs = {make_tensor<float>({2, 1}, {1, 2}), make_tensor<float>({1}, {-1})},
       .domain = "com.microsoft"});
  ASSERT_EQ(column.size(), 2u);
  EXPECT_EQ(column[0], 0.0F);
  EXPECT_NEAR(column[1], 0.841192F, 1e-5F);
}

TEST(Activation, DropoutAtInferenceIsAnIdentityWithAMaskOfOnes) {
  const auto x = make_tensor<float>({3}, {1, 2, 3});
  const auto result = run_op({.op = "Dropout",
                              .opset = 13,
                              .inputs = {x, make_tensor<float>({}, {0.9F})},
                              .num_outputs = 2});
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(testing_support::values<float>((*result)[0]), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ((*result)[1].dtype(), DType::kBool);
  EXPECT_EQ(testing_support::values<uint8_t>((*result)[1]), (std::vector<uint8_t>{1, 1, 1}));
  const auto old = run_op({.op = "Dropout", .opset = 7, .inputs = {x}, .num_outputs = 2});
  EXPECT_EQ((*old)[1].dtype(), DType::kF32);
}

TEST(Activation, DropoutWhenTrainingNeedsARatioBelowOne) {
  const auto x = make_tensor<float>({3}, {1, 2, 3});
  const auto training = make_tensor<uint8_t>({}, {1}, DType::kBool);
  for (const float ratio : {1.0F, -0.5F, std::nanf("")}) {
    EXPECT_EQ(run_op({.op = "Dropout", .inputs = {x, make_tensor<float>({}, {ratio}), training}})
                  .status()
                  .code(),
              Code::kBadInput);
  }
  EXPECT_EQ(
      output_values<float>({.op = "Dropout", .inputs = {x, make_tensor<float>({}, {0}), training}}),
      (std::vector<float>{1, 2, 3}));
}

}  // namespace
}  // namespace sprun::graph
