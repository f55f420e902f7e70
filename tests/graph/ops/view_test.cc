#include <gtest/gtest.h>

#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::run_op;
using testing_support::values;

Tensor ints(const std::vector<int64_t>& list) {
  return make_tensor<int64_t>({static_cast<int64_t>(list.size())}, list);
}

// The output shape, or the message of the error.
std::string shape_after(const std::string& op, const Shape& in, const std::vector<int64_t>& list,
                        bool allow_zero = false) {
  const auto result = run_op({.op = op,
                              .inputs = {Tensor::zeros(DType::kF32, in).value(), ints(list)},
                              .attrs = {{"allowzero", int64_t{allow_zero}}}});
  return result.ok() ? (*result)[0].shape().to_string() : result.status().message();
}

TEST(Reshape, InfersAndCopiesSizes) {
  EXPECT_EQ(shape_after("Reshape", {2, 3, 4}, {0, -1}), "[2,12]");
  EXPECT_EQ(shape_after("Reshape", {2, 0, 4}, {4, -1}), "[4,0]");
  EXPECT_EQ(shape_after("Reshape", {0, 3}, {3, 0}, true), "[3,0]");
  EXPECT_EQ(shape_after("Reshape", {1, 1}, {}), "[]");
}

TEST(Reshape, RefusesWhatDoesNotFit) {
  EXPECT_NE(shape_after("Reshape", {2, 3}, {-1, -1}).find("two sizes"), std::string::npos);
  EXPECT_NE(shape_after("Reshape", {2, 3}, {4, -1}).find("cannot infer"), std::string::npos);
  EXPECT_NE(shape_after("Reshape", {0, 3}, {0, -1}).find("cannot infer"), std::string::npos);
  EXPECT_NE(shape_after("Reshape", {2, 3}, {5}).find("cannot become"), std::string::npos);
  EXPECT_NE(shape_after("Reshape", {6}, {2, 0}).find("does not have"), std::string::npos);
  EXPECT_NE(shape_after("Reshape", {6}, {-2, 3}).find("negative"), std::string::npos);
  EXPECT_NE(shape_after("Reshape", {6}, {int64_t{1} << 62, int64_t{1} << 62}).find("2^40"), std::string::npos);
  EXPECT_NE(shape_after("Reshape", {1}, {1, 1, 1, 1, 1, 1, 1, 1, 1}).find("rank"), std::string::npos);
}

TEST(Squeeze, DropsOnlyAxesOfSizeOne) {
  EXPECT_EQ(shape_after("Squeeze", {1, 3, 1}, {-1}), "[1,3]");
  EXPECT_NE(shape_after("Squeeze", {1, 3}, {1}).find("is not 1"), std::string::npos);
  EXPECT_NE(shape_after("Squeeze", {1, 3}, {0, -2}).find("twice"), std::string::npos);
  EXPECT_NE(shape_after("Squeeze", {1, 3}, {2}).find("outside"), std::string::npos);
}

TEST(Unsqueeze, CountsAxesInTheOutput) {
  EXPECT_EQ(shape_after("Unsqueeze", {3}, {-1, 0}), "[1,3,1]");
  EXPECT_NE(shape_after("Unsqueeze", {3}, {0, 0}).find("twice"), std::string::npos);
  EXPECT_NE(shape_after("Unsqueeze", {3}, {3}).find("outside"), std::string::npos);
  EXPECT_NE(shape_after("Unsqueeze", {3}, {0, 1, 2, 3, 4, 5, 6, 7}).find("rank"), std::string::npos);
}

TEST(Flatten, TakesEveryAxisOfTheOutput) {
  const auto flat = [](int64_t axis) {
    const auto result =
        run_op({.op = "Flatten", .inputs = {Tensor::zeros(DType::kU8, {2, 3, 4}).value()}, .attrs = {{"axis", axis}}});
    return result.ok() ? (*result)[0].shape().to_string() : "error";
  };
  EXPECT_EQ(flat(0), "[1,24]");
  EXPECT_EQ(flat(3), "[24,1]");
  EXPECT_EQ(flat(-1), "[6,4]");
  EXPECT_EQ(flat(4), "error");
  EXPECT_EQ(flat(std::numeric_limits<int64_t>::min()), "error");
}

TEST(BitCast, KeepsBitsAndTheFormOfNarrowTypes) {
  const auto cast = [](const Tensor& x, DType to) {
    return run_op({.op = "BitCast", .inputs = {x}, .attrs = {{"to", static_cast<int64_t>(to)}}});
  };
  EXPECT_EQ(values<uint32_t>((*cast(make_tensor<float>({2}, {1.0F, -2.0F}), DType::kU32))[0]),
            (std::vector<uint32_t>{0x3f800000u, 0xc0000000u}));
  const auto nibbles = make_tensor<uint8_t>({3}, {0, 7, 15}, DType::kU4);
  EXPECT_EQ(values<int8_t>((*cast(nibbles, DType::kS4))[0]), (std::vector<int8_t>{0, 7, -1}));
  EXPECT_EQ(values<uint8_t>((*cast(make_tensor<uint8_t>({2}, {0, 2}), DType::kBool))[0]), (std::vector<uint8_t>{0, 1}));
  EXPECT_FALSE(cast(nibbles, DType::kU8).ok());
  EXPECT_FALSE(cast(make_tensor<float>({1}, {0}), DType::kF64).ok());
  EXPECT_FALSE(cast(make_tensor<float>({1}, {0}), static_cast<DType>(99)).ok());
}

}  // namespace
}  // namespace sprun::graph
