#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "runtime/base/half.h"
#include "tests/support/op_runner.h"

namespace sprun::graph {
namespace {

using testing_support::make_tensor;
using testing_support::output_values;
using testing_support::run_op;
using testing_support::values;

constexpr int32_t kMin32 = std::numeric_limits<int32_t>::min();
constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Arithmetic, IntegerDivisionNeverTraps) {
  const auto quotient =
      output_values<int32_t>({.op = "Div",
                              .inputs = {make_tensor<int32_t>({4}, {7, -7, kMin32, kMin32}),
                                         make_tensor<int32_t>({4}, {0, 2, -1, 0})}});
  EXPECT_EQ(quotient, (std::vector<int32_t>{0, -3, kMin32, 0}));
  for (const int64_t fmod : {0, 1}) {
    const auto rest = output_values<int8_t>(
        {.op = "Mod",
         .inputs = {make_tensor<int8_t>({3}, {7, -128, -7}), make_tensor<int8_t>({3}, {0, -1, 3})},
         .attrs = {{"fmod", fmod}}});
    EXPECT_EQ(rest, (std::vector<int8_t>{0, 0, static_cast<int8_t>(fmod == 0 ? 2 : -1)}));
  }
}

TEST(Arithmetic, IntegersWrapAround) {
  EXPECT_EQ(output_values<int32_t>(
                {.op = "Add",
                 .inputs = {make_tensor<int32_t>({1}, {kMin32}), make_tensor<int32_t>({1}, {-1})}}),
            std::vector<int32_t>{std::numeric_limits<int32_t>::max()});
  EXPECT_EQ(output_values<uint16_t>({.op = "Mul",
                                     .inputs = {make_tensor<uint16_t>({1}, {65535}),
                                                make_tensor<uint16_t>({1}, {65535})}}),
            std::vector<uint16_t>{1});
  EXPECT_EQ(output_values<int32_t>({.op = "Abs", .inputs = {make_tensor<int32_t>({1}, {kMin32})}}),
            std::vector<int32_t>{kMin32});
}

TEST(Arithmetic, FloatModuloOfOpset28FollowsTheSignOfTheDivisor) {
  const auto y = output_values<float>({.op = "Mod",
                                       .inputs = {make_tensor<float>({5}, {-1, 1, -0.0F, 5, kInf}),
                                                  make_tensor<float>({5}, {kInf, -3, 2, 0, 2})}});
  ASSERT_EQ(y.size(), 5u);
  EXPECT_EQ(y[0], kInf);
  EXPECT_EQ(y[1], -2.0F);
  EXPECT_FALSE(std::signbit(y[2]));
  EXPECT_TRUE(std::isnan(y[3]) && std::isnan(y[4]));
}

TEST(Arithmetic, ShiftsOfAnyAmountAreDefined) {
  const auto shifted = [](const char* direction) {
    return output_values<int8_t>({.op = "BitShift",
                                  .inputs = {make_tensor<int8_t>({5}, {-2, -2, 64, 64, -2}),
                                             make_tensor<int8_t>({5}, {-1, 8, 1, 100, 1})},
                                  .attrs = {{"direction", std::string(direction)}}});
  };
  EXPECT_EQ(shifted("LEFT"), (std::vector<int8_t>{0, 0, -128, 0, -4}));
  EXPECT_EQ(shifted("RIGHT"), (std::vector<int8_t>{-1, -1, 32, 0, -1}));
}

TEST(Arithmetic, PowerWithIntegersIsDefinedForEveryExponent) {
  const auto y = output_values<int32_t>(
      {.op = "Pow",
       .inputs = {make_tensor<int32_t>({6}, {2, -1, 0, 3, -1, 2}),
                  make_tensor<int64_t>({6}, {-1, -3, -2, 4, 1000000000001, 40})}});
  EXPECT_EQ(y, (std::vector<int32_t>{0, -1, 0, 81, -1, 0}));
  const auto mixed = output_values<int32_t>(
      {.op = "Pow",
       .inputs = {make_tensor<int32_t>({2}, {4, 100}), make_tensor<float>({2}, {0.5F, 30})}});
  EXPECT_EQ(mixed, (std::vector<int32_t>{2, kMin32}));
}

TEST(Arithmetic, PowersWithAKernelAgreeWithTheGeneralOne) {
  const std::vector<float> x = {0.0F, -0.0F, 1.5F, 4.0F, kInf, -kInf, 1e-3F};
  for (const float e : {2.0F, 3.0F, 0.5F, -0.5F, -1.0F}) {
    const auto fast = output_values<float>(
        {.op = "Pow", .inputs = {make_tensor<float>({7}, x), make_tensor<float>({}, {e})}});
    const auto plain =
        output_values<float>({.op = "Pow",
                              .inputs = {make_tensor<float>({7}, x),
                                         make_tensor<float>({7}, std::vector<float>(7, e))}});
    ASSERT_EQ(fast.size(), 7u);
    for (size_t i = 0; i < 7; ++i) EXPECT_FLOAT_EQ(fast[i], plain[i]) << x[i] << " ** " << e;
  }
}

TEST(Arithmetic, BroadcastIntoOneOfTheInputsInPlace) {
  for (const char* op : {"Add", "Sub", "Mul", "Div"}) {
    const auto a = make_tensor<float>({2, 3}, {1, 2, 3, 4, 5, 6});
    const auto b = make_tensor<float>({3}, {2, 4, 8});
    const auto separate = output_values<float>({.op = op, .inputs = {a, b}});
    EXPECT_EQ(output_values<float>({.op = op, .inputs = {a, b}, .in_place = true}), separate) << op;
  }
}

TEST(Arithmetic, OldBroadcastStartsAtTheGivenAxis) {
  const auto y =
      output_values<float>({.op = "Add",
                            .opset = 6,
                            .inputs = {make_tensor<float>({2, 2, 2}, std::vector<float>(8, 1.0F)),
                                       make_tensor<float>({2}, {10, 20})},
                            .attrs = {{"axis", int64_t{1}}, {"broadcast", int64_t{1}}}});
  EXPECT_EQ(y, (std::vector<float>{11, 11, 21, 21, 11, 11, 21, 21}));
}

TEST(Arithmetic, RefusesWhatDoesNotFit) {
  const auto a = make_tensor<float>({2, 3}, std::vector<float>(6));
  for (const auto& b : {make_tensor<float>({2}, {1, 2}), make_tensor<int32_t>({3}, {1, 2, 3})}) {
    const auto result = run_op({.op = "Add", .inputs = {a, b}});
    EXPECT_EQ(result.status().code(), Code::kBadModel);
    EXPECT_NE(result.status().message().find("'test'"), std::string::npos);
  }
  EXPECT_FALSE(run_op({.op = "Add",
                       .inputs = {make_tensor<uint8_t>({1}, {1}, DType::kBool),
                                  make_tensor<uint8_t>({1}, {1}, DType::kBool)}})
                   .ok());
  EXPECT_FALSE(
      run_op({.op = "BitShift", .inputs = {a, a}, .attrs = {{"direction", std::string("UP")}}})
          .ok());
}

// A random broadcast computed element by element with plain indices.
TEST(Arithmetic, RandomBroadcastsMatchIndexArithmetic) {
  std::mt19937 rng(4);
  for (int round = 0; round < 300; ++round) {
    const int rank = static_cast<int>(rng() % 6);
    Shape out, sa, sb;
    for (int i = 0; i < rank; ++i) {
      const int64_t dim = 1 + rng() % 5;
      out.push_back(dim);
      sa.push_back(rng() % 3 == 0 ? 1 : dim);
      sb.push_back(rng() % 3 == 0 ? 1 : dim);
    }
    const auto drop_leading = [&](Shape& shape) {
      while (shape.rank() > 0 && shape[0] == 1 && rng() % 2 == 0) shape.erase(0);
    };
    drop_leading(sa);
    drop_leading(sb);
    std::vector<int32_t> va(static_cast<size_t>(sa.num_elements())),
        vb(static_cast<size_t>(sb.num_elements()));
    for (size_t i = 0; i < va.size(); ++i) va[i] = static_cast<int32_t>(i);
    for (size_t i = 0; i < vb.size(); ++i) vb[i] = static_cast<int32_t>(1000 * i);
    const auto result =
        run_op({.op = "Add", .inputs = {make_tensor(sa, va), make_tensor(sb, vb)}, .threads = 2});
    ASSERT_TRUE(result.ok());
    const Shape& shape = (*result)[0].shape();
    const auto index_in = [&](const Shape& in, int64_t element) {
      int64_t index = 0, stride = 1;
      for (int i = 1; i <= shape.rank(); ++i) {
        const int64_t dim = shape[shape.rank() - i];
        if (i <= in.rank()) {
          index += (in[in.rank() - i] == 1 ? 0 : element % dim) * stride;
          stride *= in[in.rank() - i];
        }
        element /= dim;
      }
      return static_cast<size_t>(index);
    };
    const auto y = values<int32_t>((*result)[0]);
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_EQ(y[i], va[index_in(sa, static_cast<int64_t>(i))] +
                          vb[index_in(sb, static_cast<int64_t>(i))])
          << sa.to_string() << sb.to_string();
    }
  }
}

TEST(Arithmetic, LargeBroadcastsOnSeveralThreadsCoverEveryElement) {
  const int64_t rows = 501, cols = 333;
  std::vector<float> a(static_cast<size_t>(rows * cols)), b(static_cast<size_t>(cols)),
      c(static_cast<size_t>(rows));
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 1000);
  for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i);
  for (size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(i);
  const auto x = make_tensor<float>({rows, cols}, a);
  const auto by_row = output_values<float>(
      {.op = "Add", .inputs = {x, make_tensor<float>({cols}, b)}, .threads = 3});
  const auto by_column = output_values<float>(
      {.op = "Sub", .inputs = {make_tensor<float>({rows, 1}, c), x}, .threads = 3});
  ASSERT_EQ(by_row.size(), a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(by_row[i], a[i] + b[i % b.size()]);
    ASSERT_EQ(by_column[i], c[i / b.size()] - a[i]);
  }
}

TEST(Arithmetic, SixteenBitFloatsRoundOncePerOperation) {
  const auto h = [](float v) { return to_float16(v); };
  std::vector<Float16> a, b, want;
  for (int i = 0; i < 1500; ++i) {  // more than one block
    a.push_back(h(static_cast<float>(i) / 7));
    b.push_back(h(static_cast<float>(i % 13) - 6));
    want.push_back(h(to_float(a.back()) * to_float(b.back())));
  }
  EXPECT_EQ(output_values<Float16>(
                {.op = "Mul",
                 .inputs = {make_tensor<Float16>({1500}, a), make_tensor<Float16>({1500}, b)}}),
            want);
  const auto scaled = output_values<BFloat16>(
      {.op = "Mul",
       .inputs = {make_tensor<BFloat16>({}, {to_bfloat16(0.5F)}),
                  make_tensor<BFloat16>({2}, {to_bfloat16(3.0F), to_bfloat16(-8.0F)})}});
  EXPECT_EQ(scaled, (std::vector<BFloat16>{to_bfloat16(1.5F), to_bfloat16(-4.0F)}));
}

TEST(Arithmetic, AnyByteButZeroIsTrue) {
  const auto a = make_tensor<uint8_t>({4}, {0, 2, 255, 0}, DType::kBool);
  const auto b = make_tensor<uint8_t>({4}, {0, 1, 4, 8}, DType::kBool);
  EXPECT_EQ(output_values<uint8_t>({.op = "And", .inputs = {a, b}}),
            (std::vector<uint8_t>{0, 1, 1, 0}));
  EXPECT_EQ(output_values<uint8_t>({.op = "Xor", .inputs = {a, b}}),
            (std::vector<uint8_t>{0, 0, 0, 1}));
  EXPECT_EQ(output_values<uint8_t>({.op = "Equal", .inputs = {a, b}}),
            (std::vector<uint8_t>{1, 1, 1, 0}));
  EXPECT_EQ(output_values<uint8_t>({.op = "Not", .inputs = {a}}),
            (std::vector<uint8_t>{1, 0, 0, 1}));
}

TEST(Arithmetic, MaxAndMinOfManyInputsKeepNan) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto a = make_tensor<float>({3}, {1, nan, 3});
  const auto b = make_tensor<float>({3}, {nan, 2, 1});
  const auto c = make_tensor<float>({1}, {2});
  for (const char* op : {"Max", "Min"}) {
    const auto y = output_values<float>({.op = op, .inputs = {a, b, c}});
    ASSERT_EQ(y.size(), 3u);
    EXPECT_TRUE(std::isnan(y[0]) && std::isnan(y[1])) << op;
    EXPECT_EQ(y[2], op[1] == 'a' ? 3.0F : 1.0F);
  }
}

}  // namespace
}  // namespace sprun::graph
