#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::output_values;
using testing_support::run_op;

constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Reduce, NothingGivesTheNeutralElement) {
  const auto empty = make_tensor<float>({2, 0}, {});
  const auto axes = make_tensor<int64_t>({1}, {1});
  const auto of = [&](const char* op) {
    return output_values<float>({.op = op, .inputs = {empty, axes}});
  };
  EXPECT_EQ(of("ReduceSum"), (std::vector<float>{0, 0}));
  EXPECT_EQ(of("ReduceProd"), (std::vector<float>{1, 1}));
  EXPECT_EQ(of("ReduceMax"), (std::vector<float>{-kInf, -kInf}));
  EXPECT_EQ(of("ReduceMin"), (std::vector<float>{kInf, kInf}));
  EXPECT_EQ(of("ReduceLogSum"), (std::vector<float>{-kInf, -kInf}));
  EXPECT_EQ(of("ReduceLogSumExp"), (std::vector<float>{-kInf, -kInf}));
  EXPECT_TRUE(std::isnan(of("ReduceMean")[0]));
  const auto ints = output_values<int32_t>(
      {.op = "ReduceMean", .inputs = {make_tensor<int32_t>({2, 0}, {}), axes}});
  EXPECT_EQ(ints, (std::vector<int32_t>{0, 0}));
  const auto bools = output_values<uint8_t>(
      {.op = "ReduceMin", .inputs = {make_tensor<uint8_t>({1, 0}, {}, DType::kBool), axes}});
  EXPECT_EQ(bools, std::vector<uint8_t>{1});
  // An empty output needs no elements at all.
  EXPECT_TRUE(run_op({.op = "ReduceMax", .inputs = {make_tensor<float>({0, 3}, {}), axes}}).ok());
}

TEST(Reduce, RefusesAxesOutsideTheRank) {
  const auto x = make_tensor<float>({2, 2}, {1, 2, 3, 4});
  for (const int64_t axis : {int64_t{2}, int64_t{-3}, std::numeric_limits<int64_t>::min()}) {
    EXPECT_FALSE(run_op({.op = "ReduceSum", .inputs = {x, make_tensor<int64_t>({1}, {axis})}}).ok())
        << axis;
    EXPECT_FALSE(run_op({.op = "ArgMax", .inputs = {x}, .attrs = {{"axis", axis}}}).ok()) << axis;
    EXPECT_FALSE(run_op({.op = "Softmax", .inputs = {x}, .attrs = {{"axis", axis}}}).ok()) << axis;
    EXPECT_FALSE(run_op({.op = "CumSum", .inputs = {x, make_tensor<int64_t>({}, {axis})}}).ok())
        << axis;
  }
  EXPECT_FALSE(run_op({.op = "CumSum", .inputs = {x, make_tensor<int64_t>({2}, {0, 1})}}).ok());
  EXPECT_FALSE(run_op({.op = "ArgMax", .inputs = {make_tensor<float>({0, 2}, {})}}).ok());
}

TEST(Reduce, LogSumExpSurvivesLargeNumbersAndInfinities) {
  const auto of = [](const std::vector<float>& x) {
    return output_values<float>(
        {.op = "ReduceLogSumExp",
         .inputs = {make_tensor<float>({static_cast<int64_t>(x.size())}, x)}})[0];
  };
  EXPECT_FLOAT_EQ(of({1000, 1000}), 1000 + std::log(2.0F));
  EXPECT_EQ(of({-kInf, -kInf}), -kInf);
  EXPECT_FLOAT_EQ(of({-kInf, 3}), 3.0F);
  EXPECT_EQ(of({1, kInf, kInf, 2}), kInf);
  EXPECT_TRUE(std::isnan(of({1, std::nanf(""), 2})));
}

// Every set of axes of a four-dimensional tensor against index arithmetic.
TEST(Reduce, EverySetOfAxesMatchesIndexArithmetic) {
  const Shape shape = {3, 4, 5, 6};
  std::vector<float> x(360);
  std::mt19937 rng(2);
  for (float& v : x) v = static_cast<float>(rng() % 64) - 31;
  for (int64_t mask = 1; mask < 16; ++mask) {
    std::vector<int64_t> axes;
    Shape out = shape;
    for (int axis = 0; axis < 4; ++axis) {
      if ((mask >> axis & 1) == 0) continue;
      axes.push_back(axis - (axis % 2 == 0 ? 4 : 0));
      out[axis] = 1;
    }
    std::vector<float> sum(static_cast<size_t>(out.num_elements())), max(sum.size(), -kInf);
    for (int64_t i = 0; i < 360; ++i) {
      int64_t rest = i, index = 0, stride = 1;
      for (int axis = 3; axis >= 0; --axis) {
        index += (out[axis] == 1 ? 0 : rest % shape[axis]) * stride;
        stride *= out[axis];
        rest /= shape[axis];
      }
      sum[static_cast<size_t>(index)] += x[static_cast<size_t>(i)];
      max[static_cast<size_t>(index)] =
          std::max(max[static_cast<size_t>(index)], x[static_cast<size_t>(i)]);
    }
    const auto num_axes = static_cast<int64_t>(axes.size());
    const std::vector<Tensor> inputs = {make_tensor<float>(shape, x),
                                        make_tensor<int64_t>({num_axes}, axes)};
    EXPECT_EQ(output_values<float>({.op = "ReduceSum", .inputs = inputs, .threads = 2}), sum)
        << mask;
    EXPECT_EQ(output_values<float>({.op = "ReduceMax", .inputs = inputs, .threads = 2}), max)
        << mask;
  }
}

TEST(Reduce, ArgMaxFindsNanFirstAndHonoursTies) {
  const float nan = std::nanf("");
  const auto x = make_tensor<float>({2, 4}, {1, 5, 5, 2, 1, nan, 9, nan});
  const auto first =
      output_values<int64_t>({.op = "ArgMax", .inputs = {x}, .attrs = {{"axis", int64_t{1}}}});
  const auto last =
      output_values<int64_t>({.op = "ArgMax",
                              .inputs = {x},
                              .attrs = {{"axis", int64_t{1}}, {"select_last_index", int64_t{1}}}});
  EXPECT_EQ(first, (std::vector<int64_t>{1, 1}));
  EXPECT_EQ(last, (std::vector<int64_t>{2, 3}));
}

TEST(Reduce, CumulativeSumWorksInPlaceInBothDirections) {
  for (const int64_t reverse : {0, 1}) {
    for (const int64_t exclusive : {0, 1}) {
      const auto x = make_tensor<int32_t>({2, 3}, {1, 2, 3, 4, 5, 6});
      const testing_support::OpCall call = {
          .op = "CumSum",
          .inputs = {x, make_tensor<int32_t>({}, {0})},
          .attrs = {{"reverse", reverse}, {"exclusive", exclusive}}};
      const auto separate = output_values<int32_t>(call);
      auto in_place = call;
      in_place.in_place = true;
      EXPECT_EQ(output_values<int32_t>(in_place), separate);
    }
  }
}

TEST(Reduce, OldSoftmaxFlattensTheTrailingAxes) {
  const auto x = make_tensor<float>({2, 2, 2}, std::vector<float>(8, 3.0F));
  EXPECT_EQ(output_values<float>({.op = "Softmax", .opset = 11, .inputs = {x}}),
            std::vector<float>(8, 0.25F));
  EXPECT_EQ(output_values<float>({.op = "Softmax", .opset = 13, .inputs = {x}}),
            std::vector<float>(8, 0.5F));
}

TEST(Reduce, SoftmaxOverAnInnerAxisMatchesTheLastAxis) {
  std::vector<float> rows(7 * 5), columns(7 * 5);
  for (size_t i = 0; i < 7; ++i) {
    for (size_t j = 0; j < 5; ++j) {
      rows[i * 5 + j] = columns[j * 7 + i] = static_cast<float>(i * j) / 3 - static_cast<float>(j);
    }
  }
  for (const char* op : {"Softmax", "LogSoftmax", "Hardmax"}) {
    const auto last =
        output_values<float>({.op = op, .inputs = {make_tensor<float>({7, 5}, rows)}});
    const auto first = output_values<float>({.op = op,
                                             .inputs = {make_tensor<float>({5, 7}, columns)},
                                             .attrs = {{"axis", int64_t{0}}}});
    ASSERT_EQ(last.size(), first.size());
    for (size_t i = 0; i < 7; ++i) {
      for (size_t j = 0; j < 5; ++j) EXPECT_NEAR(last[i * 5 + j], first[j * 7 + i], 2e-6) << op;
    }
  }
}

}  // namespace
}  // namespace sprun::graph
