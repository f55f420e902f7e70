// sprun.Linear: packed weights against the same layer in double, which runs on the plain loop.
#include "tests/graph/ops/product_test_util.h"

namespace sprun::graph {
namespace {

using testing_support::as_double;
using testing_support::max_difference;
using testing_support::NodeCall;
using testing_support::random_tensor;
using testing_support::run_node;

struct Case {
  Shape x;
  std::vector<int64_t> n = {8};
  bool trans = false, bias = false, split = false;
  std::string activation = "none", precision = "f32";
  std::optional<Shape> residual = {};
  float alpha = 1.0f;
  int threads = 1;
  bool constant = true;
};

NodeCall make_call(const Case& c) {
  NodeCall call = {.domain = "sprun", .op = "Linear", .inputs = {random_tensor<float>(c.x, 1)}};
  const auto count = static_cast<uint32_t>(c.n.size());
  for (uint32_t i = 0; i < count; ++i) {
    call.inputs.push_back(random_tensor<float>(c.trans ? Shape{c.n[i], c.x.back()} : Shape{c.x.back(), c.n[i]}, 2 + i));
  }
  for (uint32_t i = 0; i < count; ++i) {
    // The second of several weights has no bias: absent ones in the middle must work.
    const bool present = c.bias && i != 1;
    call.inputs.push_back(present ? random_tensor<float>({c.n[i]}, 20 + i) : Tensor());
  }
  if (c.residual) call.inputs.push_back(random_tensor<float>(*c.residual, 40));
  call.attrs = {{"num_weights", int64_t{count}},
                {"trans_w", int64_t{c.trans}},
                {"split", int64_t{c.split}},
                {"activation", c.activation},
                {"alpha", c.alpha},
                {"precision", c.precision}};
  call.num_outputs = c.split ? count : 1;
  call.constants = c.constant;
  call.threads = c.threads;
  return call;
}

// Largest difference of the float32 layer to the double one over all outputs.
double error_of(const Case& c) {
  const NodeCall call = make_call(c);
  NodeCall exact = call;
  for (Tensor& input : exact.inputs) input = as_double(input);
  return difference_of_calls(call, exact);
}

constexpr double kTolerance = 5e-5;

TEST(Linear, EqualsDoubleForManySizes) {
  for (int64_t m : {1, 2, 5, 13, 40}) {
    for (int64_t k : {1, 3, 64, 129}) {
      for (int64_t n : {1, 7, 32, 33, 100}) {
        for (bool trans : {false, true}) {
          EXPECT_LT(error_of({.x = {m, k}, .n = {n}, .trans = trans, .bias = true}), kTolerance)
              << m << " " << k << " " << n << " " << trans;
        }
      }
    }
  }
}

TEST(Linear, AppliesEveryActivationAfterBiasAndAlpha) {
  for (const char* name : {"none", "relu", "gelu_erf", "gelu_tanh", "silu", "tanh", "sigmoid", "quick_gelu"}) {
    EXPECT_LT(error_of({.x = {2, 3, 40}, .n = {24}, .bias = true, .activation = name, .alpha = 0.5f}), kTolerance)
        << name;
  }
}

TEST(Linear, AddsTheResidualAfterTheActivation) {
  for (const Shape& residual : {Shape{2, 3, 24}, Shape{3, 24}, Shape{24}, Shape{2, 1, 24}, Shape{2, 3, 1}, Shape{}}) {
    EXPECT_LT(error_of({.x = {2, 3, 40}, .n = {24}, .bias = true, .activation = "tanh", .residual = residual}),
              kTolerance)
        << residual.to_string();
  }
}

TEST(Linear, JoinsOrSplitsSeveralWeights) {
  for (bool split : {false, true}) {
    for (int threads : {1, 2}) {
      EXPECT_LT(
          error_of({.x = {9, 70}, .n = {33, 64, 5}, .trans = split, .bias = true, .split = split, .threads = threads}),
          kTolerance);
    }
  }
  EXPECT_LT(error_of({.x = {2, 4, 16}, .n = {10, 20}, .residual = Shape{2, 4, 30}}), kTolerance);
}

TEST(Linear, SharesTheWorkAmongThreads) {
  EXPECT_LT(error_of({.x = {200, 96}, .n = {300}, .bias = true, .activation = "gelu_erf", .threads = 2}), 1e-4);
  EXPECT_LT(error_of({.x = {1, 700}, .n = {900}, .bias = true, .threads = 2}), 2e-4);
}

TEST(Linear, TakesComputedWeights) {
  EXPECT_LT(error_of({.x = {9, 70}, .n = {33}, .bias = true, .activation = "relu", .constant = false}), kTolerance);
  EXPECT_LT(error_of({.x = {9, 70}, .n = {33, 8}, .split = true, .constant = false}), kTolerance);
}

TEST(Linear, RoundsWeightsAndInputsForBf16) {
  // Relative rounding of 2^-9 on both operands of 64 products of numbers below 1.
  const double error = error_of({.x = {7, 64}, .n = {40}, .bias = true, .precision = "bf16"});
  EXPECT_LT(error, 64 * 2.0 / 256);
  EXPECT_GT(error, 1e-5) << "nothing was rounded";
  EXPECT_LT(error_of({.x = {7, 65}, .n = {40, 3}, .split = true, .precision = "bf16", .threads = 2}), 65 * 2.0 / 256);
}

TEST(Linear, QuantisesPerRowAndChannelForInt8) {
  const double error = error_of({.x = {7, 64}, .n = {40}, .bias = true, .precision = "int8", .alpha = 0.5f});
  EXPECT_LT(error, 64 * 0.5 * (1.0 / 127 + 2.0 / 255));
  EXPECT_GT(error, 1e-5) << "nothing was rounded";
  const Case merged = {.x = {7, 64},
                       .n = {40, 9},
                       .trans = true,
                       .split = true,
                       .activation = "silu",
                       .precision = "int8",
                       .threads = 2};
  EXPECT_LT(error_of(merged), 1.0);
  EXPECT_LT(error_of({.x = {7, 64}, .n = {40}, .precision = "int8", .residual = Shape{7, 40}}), 1.0);
}

TEST(Linear, HandlesEmptySizes) {
  EXPECT_EQ(error_of({.x = {0, 4}, .n = {3}, .bias = true}), 0);
  EXPECT_EQ(error_of({.x = {2, 0}, .n = {3}, .bias = true}), 0);
  EXPECT_EQ(error_of({.x = {2, 4}, .n = {0}}), 0);
  EXPECT_LT(error_of({.x = {4}, .n = {3}, .bias = true}), kTolerance);
}

TEST(Linear, RefusesWhatDoesNotFit) {
  const auto message = [](NodeCall call) {
    const auto result = run_node(call);
    return result.ok() ? std::string() : result.status().message();
  };
  NodeCall call = make_call({.x = {2, 4}, .n = {3}, .bias = true});
  call.inputs[1] = random_tensor<float>({5, 3}, 1);
  EXPECT_NE(message(call).find("K = 4"), std::string::npos) << message(call);
  call = make_call({.x = {2, 4}, .n = {3}, .bias = true});
  call.inputs[2] = random_tensor<float>({4}, 1);
  EXPECT_NE(message(call).find("bias"), std::string::npos) << message(call);
  call = make_call({.x = {2, 4}, .n = {3}, .activation = "swish"});
  EXPECT_NE(message(call).find("swish"), std::string::npos) << message(call);
  call = make_call({.x = {2, 4}, .n = {3}, .residual = Shape{5, 2, 3}});
  EXPECT_NE(message(call).find("residual"), std::string::npos) << message(call);
  call = make_call({.x = {2, 4}, .n = {3, 3}, .split = true});
  call.num_outputs = 1;
  EXPECT_NE(message(call).find("2 outputs"), std::string::npos) << message(call);
  call = make_call({.x = {2, 4}, .n = {3}});
  call.attrs[0].second = int64_t{1000};
  EXPECT_NE(message(call).find("num_weights"), std::string::npos) << message(call);
}

}  // namespace
}  // namespace sprun::graph
