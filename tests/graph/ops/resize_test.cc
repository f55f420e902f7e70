#include <gtest/gtest.h>

#include <limits>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::output_values;
using testing_support::run_op;

testing_support::OpCall by_scale(const Tensor& x, float scale, std::vector<std::pair<std::string, Attr>> attrs = {}) {
  return {.op = "Resize", .inputs = {x, Tensor(), make_tensor<float>({1}, {scale})}, .attrs = std::move(attrs)};
}
testing_support::OpCall by_size(const Tensor& x, int64_t size, std::vector<std::pair<std::string, Attr>> attrs = {}) {
  return {
      .op = "Resize", .inputs = {x, Tensor(), Tensor(), make_tensor<int64_t>({1}, {size})}, .attrs = std::move(attrs)};
}

TEST(Resize, RoundsAndSaturatesIntegers) {
  const auto x = make_tensor<uint8_t>({2}, {0, 255});
  EXPECT_EQ(output_values<uint8_t>(by_size(x, 4, {{"mode", std::string("cubic")}})),
            (std::vector<uint8_t>{0, 58, 197, 255}));
  EXPECT_EQ(output_values<uint8_t>(by_size(x, 4, {{"mode", std::string("linear")}})),
            (std::vector<uint8_t>{0, 64, 191, 255}));
}

TEST(Resize, MovesEveryTypeWhenNearest) {
  EXPECT_EQ(output_values<uint8_t>(by_scale(make_tensor<uint8_t>({2}, {1, 0}, DType::kBool), 2)),
            (std::vector<uint8_t>{1, 1, 0, 0}));
  EXPECT_EQ(output_values<int64_t>(by_scale(make_tensor<int64_t>({2}, {-1, 1}), 1.5F)),
            (std::vector<int64_t>{-1, -1, 1}));
}

TEST(Resize, OldVersionsShrinkToTheElementAbove) {
  testing_support::OpCall call = by_scale(make_tensor<float>({4}, {1, 2, 3, 4}), 0.6F);
  call.opset = 10;
  call.inputs.erase(call.inputs.begin() + 1);
  EXPECT_EQ(output_values<float>(call), (std::vector<float>{1, 3}));
  EXPECT_EQ(output_values<float>({.op = "Upsample",
                                  .opset = 7,
                                  .inputs = {make_tensor<float>({2}, {1, 2})},
                                  .attrs = {{"scales", std::vector<float>{2.0F}}}}),
            (std::vector<float>{1, 1, 2, 2}));
}

TEST(Resize, RefusesBadScalesAndSizes) {
  const auto x = make_tensor<float>({4}, {1, 2, 3, 4});
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  for (const float scale : {0.0F, -1.0F, kNan, kInf, 1e30F}) EXPECT_FALSE(run_op(by_scale(x, scale)).ok()) << scale;
  for (const int64_t size : {int64_t{-1}, std::numeric_limits<int64_t>::max()})
    EXPECT_FALSE(run_op(by_size(x, size)).ok());
  EXPECT_TRUE(run_op(by_size(x, 0)).ok());
  EXPECT_FALSE(run_op(by_size(Tensor::zeros(DType::kF32, {0}).value(), 2)).ok());
  EXPECT_FALSE(run_op({.op = "Resize", .inputs = {x}}).ok());
  EXPECT_FALSE(run_op(by_scale(x, 2, {{"mode", std::string("lanczos")}})).ok());
  EXPECT_FALSE(run_op(by_scale(x, 2, {{"axes", std::vector<int64_t>{0, 0}}})).ok());
  EXPECT_FALSE(run_op(by_scale(x, 2, {{"coordinate_transformation_mode", std::string("tf_crop_and_resize")}})).ok());
}

TEST(Resize, SurvivesHostileRegions) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const float end : {std::numeric_limits<float>::quiet_NaN(), kInf, -kInf, 1e38F}) {
    for (const char* mode : {"nearest", "linear", "cubic"}) {
      testing_support::OpCall call = by_size(make_tensor<float>({2}, {1, 2}), 3,
                                             {{"coordinate_transformation_mode", std::string("tf_crop_and_resize")},
                                              {"mode", std::string(mode)},
                                              {"extrapolation_value", 7.0F}});
      call.inputs[1] = make_tensor<float>({2}, {0, end});
      const auto y = output_values<float>(call);
      ASSERT_EQ(y.size(), 3u);
      EXPECT_EQ(y[2], 7.0F) << mode << end;
    }
  }
}

TEST(Resize, AntialiasesAgainstTheWholeInput) {
  std::vector<float> ramp(1000);
  for (size_t i = 0; i < ramp.size(); ++i) ramp[i] = static_cast<float>(i);
  const auto y = output_values<float>(
      by_size(make_tensor<float>({1000}, ramp), 1, {{"mode", std::string("linear")}, {"antialias", int64_t{1}}}));
  ASSERT_EQ(y.size(), 1u);
  EXPECT_NEAR(y[0], 499.5F, 0.1F);
}

TEST(GridSample, SurvivesHostileGrids) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  const auto x = make_tensor<float>({1, 1, 2, 2}, {1, 2, 3, 4});
  const auto grid = make_tensor<float>({1, 1, 5, 2}, {kNan, 0, kInf, 0, -kInf, 0, 1e38F, -1e38F, 0, 0});
  for (const char* mode : {"linear", "nearest", "cubic"}) {
    for (const char* padding : {"zeros", "border", "reflection"}) {
      for (const int64_t corners : {0, 1}) {
        const auto y = output_values<float>(
            {.op = "GridSample",
             .inputs = {x, grid},
             .attrs = {
                 {"mode", std::string(mode)}, {"padding_mode", std::string(padding)}, {"align_corners", corners}}});
        ASSERT_EQ(y.size(), 5u);
        EXPECT_TRUE(std::string(padding) != "zeros" || y[1] == 0.0F);
      }
    }
  }
  EXPECT_FALSE(run_op({.op = "GridSample", .inputs = {x, make_tensor<float>({1, 1, 1, 3}, {0, 0, 0})}}).ok());
}

TEST(Col2Im, RefusesShapesThatDoNotFit) {
  const auto ok = [](const Shape& in, const std::vector<int64_t>& image, const std::vector<int64_t>& block,
                     const std::vector<int64_t>& strides) {
    return run_op({.op = "Col2Im",
                   .inputs = {Tensor::zeros(DType::kF32, in).value(),
                              make_tensor<int64_t>({static_cast<int64_t>(image.size())}, image),
                              make_tensor<int64_t>({static_cast<int64_t>(block.size())}, block)},
                   .attrs = {{"strides", strides}}})
        .ok();
  };
  EXPECT_TRUE(ok({1, 4, 9}, {4, 4}, {2, 2}, {1, 1}));
  EXPECT_FALSE(ok({1, 4, 8}, {4, 4}, {2, 2}, {1, 1}));
  EXPECT_FALSE(ok({1, 3, 9}, {4, 4}, {2, 2}, {1, 1}));
  EXPECT_FALSE(ok({1, 4, 9}, {4, 4}, {2, 2}, {0, 1}));
  EXPECT_FALSE(ok({1, 4, 9}, {4, 4}, {2}, {1, 1}));
  EXPECT_FALSE(ok({1, 4, 9}, {4, 4}, {5, 2}, {1, 1}));
  EXPECT_FALSE(ok({1, 4, 9}, {std::numeric_limits<int64_t>::max(), 4}, {2, 2}, {1, 1}));
}

}  // namespace
}  // namespace sprun::graph
