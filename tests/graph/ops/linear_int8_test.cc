// sprun.LinearInt8: the kernels against the plain loop (weights not constant), and that loop against the ONNX ops
// that it stands for.
#include "tests/graph/ops/product_test_util.h"

namespace sprun::graph {
namespace {

using testing_support::max_difference;
using testing_support::NodeCall;
using testing_support::output_of;
using testing_support::random_tensor;
using testing_support::run_node;
using testing_support::tensor_of;

struct Case {
  Shape x = {6, 40};
  std::vector<int64_t> n = {24};
  bool trans = false, split = false, bias = true, unsigned_w = false, per_channel = true, w_zero = false;
  std::string activation = "none", x_quant = "dynamic_tensor";
  DType x_dtype = DType::kF32, x_zero_dtype = DType::kU8;
  std::optional<Shape> residual = {};
  std::optional<DType> y_dtype = {};
  int threads = 1;
};

Tensor byte_tensor(const Shape& shape, bool is_unsigned, uint32_t seed) {
  return is_unsigned ? random_tensor<uint8_t>(shape, seed) : random_tensor<int8_t>(shape, seed);
}

Tensor byte_scalar(int value, DType dtype) {
  return dtype == DType::kU8 ? tensor_of<uint8_t>({}, {static_cast<uint8_t>(value)})
                             : tensor_of<int8_t>({}, {static_cast<int8_t>(value)});
}

Tensor scales(int64_t n, uint32_t seed) {
  Tensor scale = random_tensor<float>({n}, seed);
  for (int64_t i = 0; i < n; ++i) {
    float& s = scale.mutable_view().as<float>()[i];
    s = 0.01f + 0.005f * s;
  }
  return scale;
}

void add_params(NodeCall& call, const Case& c) {
  call.inputs.push_back(c.residual ? random_tensor<float>(*c.residual, 40) : Tensor());
  const bool is_static = c.x_quant == "static";
  call.inputs.push_back(is_static ? tensor_of<float>({}, {0.011f}) : Tensor());
  call.inputs.push_back(is_static ? byte_scalar(c.x_zero_dtype == DType::kU8 ? 120 : -7, c.x_zero_dtype) : Tensor());
  call.inputs.push_back(c.y_dtype ? tensor_of<float>({}, {0.25f}) : Tensor());
  call.inputs.push_back(c.y_dtype ? byte_scalar(c.y_dtype == DType::kU8 ? 128 : 3, *c.y_dtype) : Tensor());
}

NodeCall make_call(const Case& c) {
  NodeCall call = {.domain = "sprun", .op = "LinearInt8", .inputs = {}};
  if (c.x_dtype == DType::kF32) call.inputs = {random_tensor<float>(c.x, 1)};
  else call.inputs = {byte_tensor(c.x, c.x_dtype == DType::kU8, 1)};
  const auto count = static_cast<uint32_t>(c.n.size());
  for (uint32_t i = 0; i < count; ++i) {
    const Shape shape = c.trans ? Shape{c.n[i], c.x.back()} : Shape{c.x.back(), c.n[i]};
    call.inputs.push_back(byte_tensor(shape, c.unsigned_w, 2 + i));
  }
  for (uint32_t i = 0; i < count; ++i)
    call.inputs.push_back(c.per_channel ? scales(c.n[i], 10 + i) : tensor_of<float>({}, {0.01f}));
  for (uint32_t i = 0; i < count; ++i) {
    const int64_t zeros = c.per_channel ? c.n[i] : 1;
    call.inputs.push_back(c.w_zero ? byte_tensor({zeros}, c.unsigned_w, 15 + i) : Tensor());
  }
  for (uint32_t i = 0; i < count; ++i)
    call.inputs.push_back(c.bias ? random_tensor<float>({c.n[i]}, 20 + i) : Tensor());
  add_params(call, c);
  call.attrs = {{"num_weights", int64_t{count}},
                {"trans_w", int64_t{c.trans}},
                {"split", int64_t{c.split}},
                {"activation", c.activation},
                {"x_quant", c.x_quant}};
  call.num_outputs = c.split ? count : 1;
  call.threads = c.threads;
  return call;
}

// Largest difference between kernels and plain loop, relative to a largest value of about 100.
double difference_of(const Case& c) { return kernel_difference(make_call(c)); }

constexpr double kTolerance = 2e-4;

TEST(LinearInt8, EqualsThePlainLoopForEveryKindOfInput) {
  for (bool unsigned_w : {false, true}) {
    for (bool w_zero : {false, true}) {
      for (bool per_channel : {false, true}) {
        Case c = {.unsigned_w = unsigned_w, .per_channel = per_channel, .w_zero = w_zero};
        EXPECT_LT(difference_of(c), kTolerance) << "dynamic_tensor";
        c.x_quant = "dynamic_row";
        EXPECT_LT(difference_of(c), kTolerance) << "dynamic_row";
        c.x_quant = "static";
        for (DType zero : {DType::kU8, DType::kS8}) {
          c.x_zero_dtype = zero;
          for (DType x : {DType::kF32, zero}) {
            c.x_dtype = x;
            EXPECT_LT(difference_of(c), kTolerance) << "static " << dtype_name(zero) << " " << dtype_name(x);
          }
        }
      }
    }
  }
}

TEST(LinearInt8, EqualsThePlainLoopForManySizes) {
  for (int64_t m : {1, 5, 33}) {
    for (int64_t k : {1, 7, 66, 200}) {
      for (int64_t n : {1, 31, 65}) {
        for (int threads : {1, 2}) {
          EXPECT_LT(difference_of({.x = {m, k}, .n = {n}, .trans = n == 31, .w_zero = true, .threads = threads}),
                    kTolerance)
              << m << " " << k << " " << n;
        }
      }
    }
  }
}

TEST(LinearInt8, AppliesActivationResidualAndSeveralWeights) {
  EXPECT_LT(difference_of({.activation = "gelu_erf", .residual = Shape{6, 24}}), kTolerance);
  EXPECT_LT(difference_of({.activation = "silu", .residual = Shape{1, 24}}), kTolerance);
  EXPECT_LT(difference_of({.n = {24, 7, 40}, .w_zero = true, .activation = "relu"}), kTolerance);
  EXPECT_LT(difference_of({.n = {24, 7, 40}, .split = true, .unsigned_w = true, .threads = 2}), kTolerance);
}

TEST(LinearInt8, QuantisesItsResult) {
  for (DType y : {DType::kU8, DType::kS8}) {
    // Codes of values that differ in the last bit may differ by one; here none does.
    EXPECT_LE(difference_of({.x_quant = "static", .x_dtype = DType::kU8, .y_dtype = y}), 1) << dtype_name(y);
    EXPECT_LE(difference_of({.n = {24, 9}, .activation = "relu", .residual = Shape{6, 33}, .y_dtype = y}), 1);
    EXPECT_LE(difference_of({.n = {24, 9}, .split = true, .y_dtype = y, .threads = 2}), 1);
    EXPECT_LE(difference_of({.residual = Shape{24}, .y_dtype = y}), 1);
  }
}

// DynamicQuantizeLinear -> MatMulInteger -> Cast -> scales -> bias, each by its own op.
TEST(LinearInt8, EqualsTheChainOfOnnxOps) {
  const Case c = {.x = {2, 9, 64}, .n = {48}, .unsigned_w = true, .w_zero = true};
  const NodeCall call = make_call(c);
  const auto quantised =
      run_node({.domain = "", .op = "DynamicQuantizeLinear", .inputs = {call.inputs[0]}, .num_outputs = 3});
  ASSERT_TRUE(quantised.ok());
  const Tensor sums = output_of({.domain = "",
                                 .op = "MatMulInteger",
                                 .inputs = {(*quantised)[0], call.inputs[1], (*quantised)[2], call.inputs[3]}});
  Tensor want = Tensor::allocate(DType::kF32, sums.shape()).value();
  const float x_scale = *(*quantised)[1].as<float>();
  for (int64_t i = 0; i < sums.num_elements(); ++i) {
    const float factor = x_scale * call.inputs[2].as<float>()[i % 48];
    want.mutable_view().as<float>()[i] =
        static_cast<float>(sums.as<int32_t>()[i]) * factor + call.inputs[4].as<float>()[i % 48];
  }
  NodeCall packed = call;
  packed.constants = true;
  EXPECT_EQ(max_difference(output_of(call), want), 0);
  EXPECT_LT(max_difference(output_of(packed), want), kTolerance);
}

TEST(LinearInt8, HandlesEmptySizes) {
  EXPECT_EQ(difference_of({.x = {0, 4}, .n = {3}}), 0);
  EXPECT_EQ(difference_of({.x = {2, 0}, .n = {3}}), 0);
  EXPECT_EQ(difference_of({.x = {2, 4}, .n = {0}}), 0);
}

TEST(LinearInt8, RefusesWhatDoesNotFit) {
  const auto fails = [](NodeCall call, const char* word) {
    const auto result = run_node(call);
    return !result.ok() && result.status().message().find(word) != std::string::npos;
  };
  NodeCall call = make_call({});
  call.inputs[2] = random_tensor<float>({5}, 1);
  EXPECT_TRUE(fails(call, "w_scale"));
  call = make_call({.w_zero = true});
  call.inputs[3] = random_tensor<uint8_t>({24}, 1);
  EXPECT_TRUE(fails(call, "w_zero"));
  call = make_call({.x_dtype = DType::kU8});
  EXPECT_TRUE(fails(call, "dynamic"));
  call = make_call({.x_quant = "static"});
  call.inputs[6] = Tensor();
  EXPECT_TRUE(fails(call, "x_scale"));
  call = make_call({.x_quant = "sometimes"});
  EXPECT_TRUE(fails(call, "sometimes"));
}

}  // namespace
}  // namespace sprun::graph
