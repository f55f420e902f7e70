#include <gtest/gtest.h>

#include <limits>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::output_values;
using testing_support::run_op;
using testing_support::values;

constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();

TEST(Constant, HasEveryForm) {
  const auto make = [](const char* name, Attr value) {
    return run_op({.op = "Constant", .attrs = {{name, std::move(value)}}});
  };
  EXPECT_EQ(values<int64_t>((*make("value_int", int64_t{7}))[0]), std::vector<int64_t>{7});
  EXPECT_EQ(values<float>((*make("value_float", 2.5F))[0]), std::vector<float>{2.5F});
  EXPECT_EQ(values<int64_t>((*make("value_ints", std::vector<int64_t>{1, 2}))[0]), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(values<float>((*make("value_floats", std::vector<float>{1, 2}))[0]), (std::vector<float>{1, 2}));
  EXPECT_EQ(values<int8_t>((*make("value", make_tensor<int8_t>({2}, {3, 4})))[0]), (std::vector<int8_t>{3, 4}));
  EXPECT_FALSE(make("value_string", std::string("x")).ok());
  EXPECT_FALSE(run_op({.op = "Constant"}).ok());
}

TEST(ConstantOfShape, RefusesBadShapes) {
  const auto make = [](const std::vector<int64_t>& dims) {
    return run_op(
               {.op = "ConstantOfShape", .inputs = {make_tensor<int64_t>({static_cast<int64_t>(dims.size())}, dims)}})
        .status()
        .code();
  };
  EXPECT_EQ(make({2, 0, 3}), Code::kOk);
  EXPECT_EQ(make({-1}), Code::kBadModel);
  EXPECT_EQ(make({kMax, kMax}), Code::kResourceLimit);
  EXPECT_EQ(make({kMax, 0, kMax}), Code::kResourceLimit);
}

template <class T>
testing_support::OpCall range(T start, T limit, T delta) {
  return {.op = "Range",
          .inputs = {make_tensor<T>({}, {start}), make_tensor<T>({}, {limit}), make_tensor<T>({}, {delta})}};
}

TEST(Range, CountsWithoutOverflow) {
  EXPECT_EQ(output_values<int64_t>(range<int64_t>(kMax - 1, kMax, 5)), std::vector<int64_t>{kMax - 1});
  EXPECT_EQ(output_values<int64_t>(range<int64_t>(kMax, kMin, kMin)), (std::vector<int64_t>{kMax, -1}));
  EXPECT_EQ(output_values<int64_t>(range<int64_t>(0, kMax, kMax)), std::vector<int64_t>{0});
  EXPECT_EQ(run_op(range<int64_t>(kMin, kMax, 1)).status().code(), Code::kResourceLimit);
  EXPECT_FALSE(run_op(range<int32_t>(0, 1, 0)).ok());
  EXPECT_FALSE(run_op(range<float>(0, 1, 0)).ok());
  EXPECT_FALSE(run_op(range<float>(0, std::numeric_limits<float>::quiet_NaN(), 1)).ok());
  EXPECT_TRUE(run_op(range<float>(5, 1, 1)).ok());
}

TEST(OneHot, LeavesPositionsOutsideOff) {
  const auto hot = [](const Tensor& indices) {
    return output_values<int8_t>(
        {.op = "OneHot", .inputs = {indices, make_tensor<int64_t>({1}, {2}), make_tensor<int8_t>({2}, {-1, 1})}});
  };
  EXPECT_EQ(hot(make_tensor<int64_t>({4}, {0, -1, 2, kMin})), (std::vector<int8_t>{1, -1, -1, 1, -1, -1, -1, -1}));
  EXPECT_EQ(hot(make_tensor<float>({3}, {1.5F, 1e30F, std::numeric_limits<float>::quiet_NaN()})),
            (std::vector<int8_t>{-1, 1, -1, -1, -1, -1}));
  EXPECT_EQ(hot(make_tensor<uint64_t>({1}, {std::numeric_limits<uint64_t>::max()})), (std::vector<int8_t>{-1, -1}));
}

TEST(OneHot, RefusesBadDepths) {
  const auto ok = [](const Tensor& depth) {
    return run_op({.op = "OneHot", .inputs = {make_tensor<int64_t>({1}, {0}), depth, make_tensor<float>({2}, {0, 1})}})
        .ok();
  };
  EXPECT_TRUE(ok(make_tensor<int64_t>({}, {0})));
  EXPECT_FALSE(ok(make_tensor<int64_t>({}, {-1})));
  EXPECT_FALSE(ok(make_tensor<int64_t>({}, {kMax})));
  EXPECT_FALSE(ok(make_tensor<float>({}, {1e30F})));
  EXPECT_FALSE(ok(make_tensor<int64_t>({2}, {1, 1})));
}

TEST(Trilu, TakesAnyDiagonalInPlace) {
  const auto triangle = [](int64_t k, int64_t upper) {
    return output_values<int32_t>(
        {.op = "Trilu",
         .inputs = {make_tensor<int32_t>({2, 2}, {1, 2, 3, 4}), make_tensor<int64_t>({}, {k})},
         .attrs = {{"upper", upper}},
         .in_place = true});
  };
  EXPECT_EQ(triangle(0, 1), (std::vector<int32_t>{1, 2, 0, 4}));
  EXPECT_EQ(triangle(0, 0), (std::vector<int32_t>{1, 0, 3, 4}));
  EXPECT_EQ(triangle(kMin, 1), (std::vector<int32_t>{1, 2, 3, 4}));
  EXPECT_EQ(triangle(kMax, 1), (std::vector<int32_t>{0, 0, 0, 0}));
  EXPECT_EQ(triangle(kMin, 0), (std::vector<int32_t>{0, 0, 0, 0}));
  EXPECT_EQ(triangle(kMax, 0), (std::vector<int32_t>{1, 2, 3, 4}));
}

TEST(EyeLike, TakesAnyDiagonalAndType) {
  const auto eye = [](int64_t k, DType dtype) {
    return run_op({.op = "EyeLike",
                   .inputs = {make_tensor<int32_t>({2, 3}, {})},
                   .attrs = {{"k", k}, {"dtype", static_cast<int64_t>(dtype)}}});
  };
  EXPECT_EQ(values<float>((*eye(1, DType::kF32))[0]), (std::vector<float>{0, 1, 0, 0, 0, 1}));
  EXPECT_EQ(values<uint8_t>((*eye(-1, DType::kBool))[0]), (std::vector<uint8_t>{0, 0, 0, 1, 0, 0}));
  EXPECT_EQ(values<int64_t>((*eye(kMin, DType::kS64))[0]), std::vector<int64_t>(6, 0));
  EXPECT_FALSE(eye(0, DType::kString).ok());
}

}  // namespace
}  // namespace sprun::graph
