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

template <class To>
std::vector<To> cast(const Tensor& x, DType to = dtype_of<To>()) {
  return output_values<To>(
      {.op = "Cast", .inputs = {x}, .attrs = {{"to", static_cast<int64_t>(to)}}});
}

constexpr DType kAll[] = {DType::kF32, DType::kU8,  DType::kS8,   DType::kU16, DType::kS16,
                          DType::kS32, DType::kS64, DType::kBool, DType::kF16, DType::kF64,
                          DType::kU32, DType::kU64, DType::kBf16, DType::kU4,  DType::kS4};

TEST(Cast, EveryPairOfTypesKeepsSmallNumbers) {
  for (const DType from : kAll) {
    for (const DType to : kAll) {
      SCOPED_TRACE(std::string(dtype_name(from)) + " to " + std::string(dtype_name(to)));
      // 1, 0 and 5 (or true) as `from`, then as `to`, then back to int64. Long enough for several
      // blocks.
      std::vector<int64_t> numbers(1000), want(1000);
      for (size_t i = 0; i < numbers.size(); ++i) {
        numbers[i] = i % 3 == 0 ? 1 : i % 3 == 1 ? 0 : 5;
        const bool boolean = from == DType::kBool || to == DType::kBool;
        want[i] = boolean ? numbers[i] != 0 : numbers[i];
      }
      const auto source = run_op({.op = "Cast",
                                  .inputs = {make_tensor<int64_t>({1000}, numbers)},
                                  .attrs = {{"to", static_cast<int64_t>(from)}}});
      ASSERT_TRUE(source.ok());
      const auto middle = run_op({.op = "Cast",
                                  .inputs = {(*source)[0]},
                                  .attrs = {{"to", static_cast<int64_t>(to)}},
                                  .threads = 2});
      ASSERT_TRUE(middle.ok());
      EXPECT_EQ((*middle)[0].dtype(), to);
      EXPECT_EQ(cast<int64_t>((*middle)[0]), want);
    }
  }
}

TEST(Cast, FloatsOutsideTheRangeOfAnIntegerAreDefined) {
  const float inf = std::numeric_limits<float>::infinity();
  const auto x = make_tensor<float>({6}, {std::nanf(""), inf, -inf, 3e9F, -1.9F, 300.0F});
  constexpr int32_t kMin32 = std::numeric_limits<int32_t>::min();
  constexpr int64_t kMin64 = std::numeric_limits<int64_t>::min();
  EXPECT_EQ(cast<int32_t>(x), (std::vector<int32_t>{kMin32, kMin32, kMin32, kMin32, -1, 300}));
  EXPECT_EQ(cast<int64_t>(x), (std::vector<int64_t>{kMin64, kMin64, kMin64, 3000000000, -1, 300}));
  EXPECT_EQ(cast<uint8_t>(x), (std::vector<uint8_t>{0, 0, 0, 0, 255, 44}));
  EXPECT_EQ(cast<uint32_t>(x)[3], 3000000000u);
  EXPECT_EQ(cast<uint64_t>(make_tensor<double>({1}, {0x1.8p63})),
            std::vector<uint64_t>{uint64_t{3} << 62});
  EXPECT_EQ(cast<uint8_t>(x, DType::kBool), (std::vector<uint8_t>{1, 1, 1, 1, 1, 1}));
}

TEST(Cast, IntegersDropHighBits) {
  const auto x = make_tensor<int32_t>({4}, {200, -1, 256, 70000});
  EXPECT_EQ(cast<int8_t>(x), (std::vector<int8_t>{-56, -1, 0, 112}));
  EXPECT_EQ(cast<uint16_t>(x), (std::vector<uint16_t>{200, 65535, 256, 4464}));
  EXPECT_EQ(cast<uint8_t>(x, DType::kU4), (std::vector<uint8_t>{8, 15, 0, 0}));
  EXPECT_EQ(cast<int8_t>(x, DType::kS4), (std::vector<int8_t>{-8, -1, 0, 0}));
}

TEST(Cast, LargeIntegersRoundOnceToFloat) {
  const int64_t odd = (int64_t{1} << 24) + 1;
  EXPECT_EQ(cast<float>(make_tensor<int64_t>({2}, {odd, (int64_t{1} << 53) + 1})),
            (std::vector<float>{0x1p24F, 0x1p53F}));
  EXPECT_EQ(cast<float>(make_tensor<uint64_t>({1}, {~uint64_t{0}})), std::vector<float>{0x1p64F});
  EXPECT_EQ(cast<Float16>(make_tensor<int32_t>({2}, {65519, 65520})),
            (std::vector<Float16>{to_float16(65504.0F), to_float16(1e9F)}));
}

TEST(Cast, DoubleToHalfRoundsOnce) {
  // Just above the middle of two halves: by way of float it would look like the middle and round
  // down.
  const double x = 1.0 + 0x1p-11 + 0x1p-40;
  EXPECT_EQ(cast<Float16>(make_tensor<double>({1}, {x})),
            std::vector<Float16>{to_float16(1.0009765625F)});
}

TEST(Cast, WorksInPlaceForTypesOfOneSize) {
  const auto x = make_tensor<float>({600}, std::vector<float>(600, 7.9F));
  EXPECT_EQ(output_values<uint32_t>({.op = "Cast",
                                     .inputs = {x},
                                     .attrs = {{"to", static_cast<int64_t>(DType::kU32)}},
                                     .in_place = true}),
            std::vector<uint32_t>(600, 7u));
}

TEST(Cast, RefusesTypesThatDoNotExist) {
  for (const int64_t to : {int64_t{0}, int64_t{8}, int64_t{17}, int64_t{-1}, int64_t{1} << 40}) {
    const auto result =
        run_op({.op = "Cast", .inputs = {make_tensor<float>({1}, {1})}, .attrs = {{"to", to}}});
    EXPECT_EQ(result.status().code(), Code::kBadModel) << to;
  }
  EXPECT_FALSE(run_op({.op = "Cast", .inputs = {make_tensor<float>({1}, {1})}}).ok());
}

}  // namespace
}  // namespace sprun::graph
