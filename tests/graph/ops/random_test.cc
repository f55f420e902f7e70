#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::output_values;
using testing_support::run_op;

testing_support::OpCall random_call(const char* op, int threads, std::vector<std::pair<std::string, Attr>> attrs) {
  attrs.emplace_back("shape", std::vector<int64_t>{100, 1000});
  return {.op = op, .attrs = std::move(attrs), .threads = threads};
}

struct Moments {
  double mean = 0, deviation = 0;
};

Moments moments(const std::vector<float>& x) {
  double sum = 0, squares = 0;
  for (const float v : x) {
    sum += v;
    squares += double{v} * v;
  }
  const auto n = static_cast<double>(x.size());
  return {sum / n, std::sqrt(squares / n - sum / n * (sum / n))};
}

TEST(Random, SeedDecidesWhateverTheThreads) {
  for (const char* op : {"RandomNormal", "RandomUniform"}) {
    const auto draw = [&](int threads, float seed) {
      return output_values<float>(random_call(op, threads, {{"seed", seed}}));
    };
    EXPECT_EQ(draw(1, 3.0F), draw(3, 3.0F));
    EXPECT_NE(draw(1, 3.0F), draw(1, 4.0F));
    EXPECT_NE(output_values<float>(random_call(op, 1, {})), output_values<float>(random_call(op, 1, {})));
  }
}

TEST(Random, HasTheMomentsThatWereAskedFor) {
  const auto normal =
      moments(output_values<float>(random_call("RandomNormal", 1, {{"seed", 1.0F}, {"mean", 5.0F}, {"scale", 2.0F}})));
  EXPECT_NEAR(normal.mean, 5.0, 0.05);
  EXPECT_NEAR(normal.deviation, 2.0, 0.05);
  const auto uniform =
      moments(output_values<float>(random_call("RandomUniform", 1, {{"seed", 1.0F}, {"low", -1.0F}, {"high", 3.0F}})));
  EXPECT_NEAR(uniform.mean, 1.0, 0.05);
  EXPECT_NEAR(uniform.deviation, 4.0 / std::sqrt(12.0), 0.05);
}

TEST(Bernoulli, FollowsTheProbability) {
  const auto draws = output_values<float>({.op = "Bernoulli",
                                           .inputs = {make_tensor<float>({10'000}, std::vector<float>(10'000, 0.25F))},
                                           .attrs = {{"seed", 7.0F}}});
  EXPECT_NEAR(moments(draws).mean, 0.25, 0.03);
  const auto sure = output_values<uint8_t>({.op = "Bernoulli",
                                            .inputs = {make_tensor<float>({3}, {0, 1, std::nanf("")})},
                                            .attrs = {{"dtype", static_cast<int64_t>(DType::kBool)}}});
  EXPECT_EQ(sure, (std::vector<uint8_t>{0, 1, 0}));
}

TEST(Multinomial, FollowsTheLogits) {
  const auto y =
      output_values<int32_t>({.op = "Multinomial",
                              .inputs = {make_tensor<float>({1, 3}, {std::log(1.0F), -INFINITY, std::log(3.0F)})},
                              .attrs = {{"seed", 7.0F}, {"sample_size", int64_t{10'000}}}});
  EXPECT_NEAR(static_cast<double>(std::count(y.begin(), y.end(), 2)), 7500, 300);
  EXPECT_EQ(std::count(y.begin(), y.end(), 1), 0);
  EXPECT_FALSE(run_op({.op = "Multinomial", .inputs = {make_tensor<float>({1, 0}, {})}}).ok());
}

}  // namespace
}  // namespace sprun::graph
