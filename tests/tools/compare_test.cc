#include "tools/sprun/compare.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace sprun::tools {
namespace {

Tensor floats(const std::vector<float>& values, const Shape& shape) {
  Tensor t = Tensor::zeros(DType::kF32, shape).value();
  std::memcpy(t.mutable_view().data, values.data(), values.size() * sizeof(float));
  return t;
}

bool equal(const std::vector<float>& got, const std::vector<float>& want, const Tolerance& tolerance) {
  const auto n = static_cast<int64_t>(got.size());
  return compare_tensors("y", floats(got, {n}).view(), floats(want, {n}).view(), tolerance).equal;
}

TEST(Compare, MaxAllowsAbsolutePlusRelative) {
  EXPECT_TRUE(equal({100.1F}, {100}, {.rtol = 1e-3, .atol = 1e-2}));
  EXPECT_FALSE(equal({100.2F}, {100}, {.rtol = 1e-3, .atol = 1e-2}));
}

TEST(Compare, ScaledUsesTheLargestExpectedValue) {
  EXPECT_FALSE(equal({0.05F, 100}, {0, 100}, {.rtol = 1e-3, .atol = 0}));
  EXPECT_TRUE(equal({0.05F, 100}, {0, 100}, {.metric = Metric::kScaled, .rtol = 1e-3, .atol = 0}));
}

TEST(Compare, NanEqualsNanAndInfinityItself) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(equal({nan, inf, -inf}, {nan, inf, -inf}, {}));
  EXPECT_FALSE(equal({1}, {nan}, {}));
  EXPECT_FALSE(equal({nan}, {1}, {}));
  EXPECT_FALSE(equal({1}, {inf}, {}));
  EXPECT_FALSE(equal({inf}, {-inf}, {}));
}

TEST(Compare, DetailNamesTheWorstElement) {
  const Comparison c = compare_tensors("y", floats({1, 2, 3, 9}, {2, 2}).view(), floats({1, 2, 4, 4}, {2, 2}).view(), {});
  EXPECT_FALSE(c.equal);
  EXPECT_NE(c.detail.find("[1,1]"), std::string::npos);
  EXPECT_NE(c.detail.find("2 of 4"), std::string::npos);
  EXPECT_EQ(c.max_abs_diff, 5);
}

TEST(Compare, Top1LooksAtTheLargestOfEachRow) {
  const Tensor a = floats({1, 2, 5, 4}, {2, 2}), b = floats({0, 9, 3, 1}, {2, 2}), c = floats({1, 0, 3, 1}, {2, 2});
  EXPECT_TRUE(compare_tensors("y", a.view(), b.view(), {.metric = Metric::kTop1}).equal);
  EXPECT_FALSE(compare_tensors("y", a.view(), c.view(), {.metric = Metric::kTop1}).equal);
}

TEST(Compare, CosineIgnoresScale) {
  EXPECT_TRUE(equal({2, 4}, {1, 2}, {.metric = Metric::kCosine}));
  EXPECT_FALSE(equal({2, -4}, {1, 2}, {.metric = Metric::kCosine}));
}

TEST(Compare, OtherShapeOrTypeIsNeverEqual) {
  EXPECT_FALSE(compare_tensors("y", floats({1, 2}, {2}).view(), floats({1, 2}, {1, 2}).view(), {}).equal);
  EXPECT_FALSE(compare_tensors("y", floats({1}, {1}).view(), Tensor::zeros(DType::kS32, {1}).value().view(), {}).equal);
}

TEST(Tolerances, GeneralAndPerOutput) {
  const Tolerances t = Tolerances::create({.rtol = {"1e-2", "logits=1e-4"}, .atol = {}}).value();
  EXPECT_EQ(t.for_output("logits").rtol, 1e-4);
  EXPECT_EQ(t.for_output("other").rtol, 1e-2);
  const std::vector<std::string> names = {"other"};
  EXPECT_EQ(t.check_names(names).code(), Code::kUsage);
  EXPECT_FALSE(Tolerances::create({.rtol = {"x"}, .atol = {}}).ok());
  EXPECT_FALSE(Tolerances::create({.rtol = {"-1"}, .atol = {}}).ok());
  EXPECT_FALSE(Tolerances::create({.rtol = {}, .atol = {}, .metric = "mean"}).ok());
}

}  // namespace
}  // namespace sprun::tools
