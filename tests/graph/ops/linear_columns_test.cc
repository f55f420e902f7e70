// sprun.LinearInt8 with Y or X as columns, on the plain loops that run without packed weights: a chain of two layers gives
// what it gives with rows in between.
#include <gtest/gtest.h>

#include "tests/support/op_runner.h"

namespace sprun {
namespace {

using graph::Attr;
using testing_support::make_tensor;
using testing_support::OpCall;
using testing_support::run_op;
using testing_support::values;

constexpr int64_t kM = 67, kK = 5, kN = 6, kOut = 3;

Tensor floats(const Shape& shape, float step) {
  std::vector<float> v;
  for (int64_t i = 0; i < shape.num_elements(); ++i) v.push_back(static_cast<float>(i * 37 % 41 - 20) * step);
  return make_tensor<float>(shape, v);
}

Tensor bytes(const Shape& shape) {
  std::vector<int8_t> v;
  for (int64_t i = 0; i < shape.num_elements(); ++i) v.push_back(static_cast<int8_t>(i * 53 % 255 - 127));
  return make_tensor<int8_t>(shape, v);
}

// One layer with weight [k, n]; inputs behind w_scale are absent unless set.
OpCall layer(Tensor x, int64_t k, int64_t n) {
  OpCall call = {.op = "LinearInt8", .domain = "sprun"};
  call.inputs = {std::move(x), bytes({k, n}), floats({n}, 0.001F)};
  call.inputs.resize(11);
  return call;
}

constexpr size_t kXScale = 6, kXZero = 7, kYScale = 8, kYZero = 9, kXRange = 10;

TEST(LinearColumns, DynamicChain) {
  OpCall first = layer(floats({kM, kK}, 0.1F), kK, kN);
  const Tensor rows = run_op(first).value()[0];
  first.attrs.push_back({"y_columns", Attr(int64_t{1})});
  first.num_outputs = 2;
  const auto columns = run_op(first).value();
  ASSERT_EQ(columns[0].shape(), (Shape{2, kN, 64}));
  const std::vector<float> y = values<float>(rows);
  EXPECT_EQ(values<float>(columns[1]), (std::vector<float>{std::min(0.0F, *std::min_element(y.begin(), y.end())),
                                                           std::max(0.0F, *std::max_element(y.begin(), y.end()))}));
  OpCall second = layer(columns[0], kN, kOut);
  second.inputs[kXRange] = columns[1];
  second.attrs.push_back({"x_shape", Attr(std::vector<int64_t>{kM, kN})});
  const Tensor got = run_op(second).value()[0];
  EXPECT_EQ(got.shape(), (Shape{kM, kOut}));
  EXPECT_EQ(values<float>(got), values<float>(run_op(layer(rows, kN, kOut)).value()[0]));
}

template <class Code>
void check_static(Code zero) {
  const auto with_zero = [](OpCall call, size_t scale, size_t zero_at, Code value) {
    call.inputs[scale] = make_tensor<float>({}, {0.05F});
    call.inputs[zero_at] = make_tensor<Code>({}, {value});
    return call;
  };
  OpCall first = with_zero(layer(floats({kM, kK}, 0.1F), kK, kN), kYScale, kYZero, zero);
  const Tensor rows = run_op(first).value()[0];
  first.attrs.push_back({"y_columns", Attr(int64_t{1})});
  const Tensor columns = run_op(first).value()[0];
  ASSERT_EQ(columns.dtype(), DType::kU8);
  OpCall second = with_zero(layer(columns, kN, kOut), kXScale, kXZero, zero);
  second.attrs.push_back({"x_quant", Attr(std::string("static"))});
  OpCall plain = second;
  plain.inputs[0] = rows;
  second.attrs.push_back({"x_shape", Attr(std::vector<int64_t>{kM, kN})});
  EXPECT_EQ(values<float>(run_op(second).value()[0]), values<float>(run_op(plain).value()[0]));
}

TEST(LinearColumns, StaticChainOfUnsignedCodes) { check_static<uint8_t>(90); }
TEST(LinearColumns, StaticChainOfSignedCodes) { check_static<int8_t>(-11); }

TEST(LinearColumns, ColumnsOfAnotherShapeAreRefused) {
  OpCall call = layer(floats({2, kN, 64}, 0.1F), kN, kOut);
  call.inputs[kXRange] = make_tensor<float>({2}, {-1, 1});
  call.attrs.push_back({"x_shape", Attr(std::vector<int64_t>{200, kN})});
  EXPECT_NE(run_op(call).status().message().find("X is not columns of shape [200,6]"), std::string::npos);
  call.attrs[0].second = Attr(std::vector<int64_t>{kM, kN});
  EXPECT_TRUE(run_op(call).ok());
  call.inputs[kXRange] = Tensor();
  EXPECT_NE(run_op(call).status().message().find("floats with their range"), std::string::npos);
}

}  // namespace
}  // namespace sprun
