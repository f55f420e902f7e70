// sprun.LinearDequant: the kernels against the plain loop (weights not constant), and that loop against the ONNX ops that
// it stands for; sprun.Linear with 16-bit weights.
#include "runtime/base/half.h"
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
  bool trans = false, split = false, bias = true, unsigned_w = false, zero = false, one_scale = false;
  int64_t block = 0;
  std::string activation = "none";
  std::optional<Shape> residual = {};
  int threads = 1;
  double density = 1;
};

Tensor codes_of(const Case& c, const Shape& shape, uint32_t seed) {
  Tensor codes = c.unsigned_w ? random_tensor<uint8_t>(shape, seed) : random_tensor<int8_t>(shape, seed);
  std::mt19937 engine(seed);
  uint8_t* bytes = codes.mutable_view().as<uint8_t>();
  for (int64_t i = 0; c.density < 1 && i < codes.num_elements(); ++i) {
    if (static_cast<double>(engine() % 1000) >= 1000 * c.density) bytes[i] = c.unsigned_w ? 128 : 0;
  }
  return codes;
}

Shape params_shape(const Case& c, int64_t n) {
  if (c.one_scale) return {};
  if (c.block == 0) return {n};
  const int64_t blocks = (c.x.back() + c.block - 1) / c.block;
  return c.trans ? Shape{n, blocks} : Shape{blocks, n};
}

Tensor scales(const Shape& shape, uint32_t seed) {
  Tensor scale = random_tensor<float>(shape, seed);
  for (int64_t i = 0; i < scale.num_elements(); ++i) {
    float& s = scale.mutable_view().as<float>()[i];
    s = 0.01F + 0.005F * s;
  }
  return scale;
}

Tensor zeros(const Case& c, const Shape& shape, uint32_t seed) {
  if (c.density < 1) {
    return c.unsigned_w ? tensor_of<uint8_t>(shape, std::vector<uint8_t>(static_cast<size_t>(shape.num_elements()), 128)) : Tensor();
  }
  return c.unsigned_w ? random_tensor<uint8_t>(shape, seed) : random_tensor<int8_t>(shape, seed);
}

NodeCall make_call(const Case& c) {
  NodeCall call = {.domain = "sprun", .op = "LinearDequant", .inputs = {random_tensor<float>(c.x, 1)}};
  const auto count = static_cast<uint32_t>(c.n.size());
  for (uint32_t i = 0; i < count; ++i) {
    call.inputs.push_back(codes_of(c, c.trans ? Shape{c.n[i], c.x.back()} : Shape{c.x.back(), c.n[i]}, 2 + i));
  }
  for (uint32_t i = 0; i < count; ++i) call.inputs.push_back(scales(params_shape(c, c.n[i]), 10 + i));
  for (uint32_t i = 0; i < count; ++i) call.inputs.push_back(c.zero ? zeros(c, params_shape(c, c.n[i]), 15 + i) : Tensor());
  for (uint32_t i = 0; i < count; ++i) call.inputs.push_back(c.bias ? random_tensor<float>({c.n[i]}, 20 + i) : Tensor());
  call.inputs.push_back(c.residual ? random_tensor<float>(*c.residual, 40) : Tensor());
  call.attrs = {{"num_weights", int64_t{count}}, {"trans_w", int64_t{c.trans}}, {"split", int64_t{c.split}},
                {"activation", c.activation},    {"block_size", c.block}};
  call.num_outputs = c.split ? count : 1;
  call.threads = c.threads;
  return call;
}

// Largest difference between kernels and plain loop; sums reach about 10.
double difference_of(const Case& c) { return kernel_difference(make_call(c)); }

constexpr double kTolerance = 3e-5;

TEST(LinearDequant, EqualsThePlainLoopForEveryKindOfWeight) {
  for (bool unsigned_w : {false, true}) {
    for (bool zero : {false, true}) {
      for (bool trans : {false, true}) {
        for (int64_t block : {0, 16, 7, 64}) {
          const Case c = {.trans = trans, .unsigned_w = unsigned_w, .zero = zero, .block = block};
          EXPECT_LT(difference_of(c), kTolerance) << unsigned_w << zero << trans << " block " << block;
        }
        EXPECT_LT(difference_of({.trans = trans, .unsigned_w = unsigned_w, .zero = zero, .one_scale = true}), kTolerance);
      }
    }
  }
}

TEST(LinearDequant, EqualsThePlainLoopForManySizes) {
  for (int64_t m : {1, 5, 33, 130}) {
    for (int64_t k : {1, 7, 66, 200}) {
      for (int64_t n : {8, 33, 65}) {
        EXPECT_LT(difference_of({.x = {m, k}, .n = {n}, .threads = m > 30 ? 3 : 1}), kTolerance) << m << " " << k << " " << n;
      }
    }
  }
}

TEST(LinearDequant, SeveralWeightsResidualsAndActivations) {
  EXPECT_LT(difference_of({.n = {24, 40, 8}, .split = true}), kTolerance);
  EXPECT_LT(difference_of({.n = {24, 40}, .activation = "silu", .residual = Shape{6, 64}}), kTolerance);
  EXPECT_LT(difference_of({.residual = Shape{1, 24}}), kTolerance);
  for (const char* activation : {"relu", "gelu_erf", "gelu_tanh", "tanh", "sigmoid", "quick_gelu"}) {
    EXPECT_LT(difference_of({.activation = activation}), kTolerance) << activation;
  }
}

TEST(LinearDequant, WeightsWithZerosEqualThePlainLoopToo) {
  for (bool unsigned_w : {false, true}) {
    for (double density : {0.0, 0.1}) {
      const Case c = {.x = {4, 256}, .n = {512}, .unsigned_w = unsigned_w, .zero = unsigned_w, .density = density};
      EXPECT_LT(difference_of(c), kTolerance) << unsigned_w << density;
    }
  }
}

TEST(LinearDequant, StandsForDequantizeLinearAndMatMul) {
  for (int64_t block : {0, 8}) {
    const Case c = {.bias = false, .zero = true, .block = block};
    const NodeCall call = make_call(c);
    const Tensor w = output_of({.op = "DequantizeLinear",
                                .inputs = {call.inputs[1], call.inputs[2], call.inputs[3]},
                                .attrs = {{"axis", int64_t{block > 0 ? 0 : 1}}, {"block_size", block}}});
    const Tensor want = output_of({.op = "MatMul", .inputs = {call.inputs[0], w}});
    EXPECT_LT(max_difference(output_of(call), want), kTolerance) << block;
  }
}

TEST(LinearDequant, BadInputsAreErrors) {
  NodeCall scale = make_call({});
  scale.inputs[2] = scales({23}, 3);
  EXPECT_FALSE(run_node(scale).ok());
  NodeCall zero = make_call({.zero = true});
  zero.inputs[3] = random_tensor<uint8_t>({24}, 3);
  EXPECT_FALSE(run_node(zero).ok());
  NodeCall blocks = make_call({.block = 16});
  blocks.attrs.back().second = int64_t{8};
  EXPECT_FALSE(run_node(blocks).ok());
}

Tensor halves_of(const Tensor& x, DType dtype) {
  Tensor half = Tensor::allocate(dtype, x.shape()).value();
  for (int64_t i = 0; i < x.num_elements(); ++i) {
    if (dtype == DType::kF16) half.mutable_view().as<Float16>()[i] = to_float16(x.as<float>()[i]);
    else half.mutable_view().as<BFloat16>()[i] = to_bfloat16(x.as<float>()[i]);
  }
  return half;
}

TEST(Linear, SixteenBitWeightsCountAsTheFloatsTheyWidenTo) {
  for (DType dtype : {DType::kF16, DType::kBf16}) {
    for (int64_t m : {1, 7, 40}) {
      for (bool trans : {false, true}) {
        const Tensor half = halves_of(random_tensor<float>(trans ? Shape{35, 50} : Shape{50, 35}, 3), dtype);
        NodeCall call = {.domain = "sprun",
                         .op = "Linear",
                         .inputs = {random_tensor<float>({m, 50}, 1), half, random_tensor<float>({35}, 4)},
                         .attrs = {{"trans_w", int64_t{trans}}, {"alpha", 0.5F}, {"activation", std::string("relu")}}};
        const Tensor plain = output_of(call);
        call.constants = true;
        const Tensor kernel = output_of(call);
        call.inputs[1] = output_of({.op = "Cast", .inputs = {half}, .attrs = {{"to", int64_t{1}}}});
        EXPECT_LT(max_difference(kernel, plain), 1e-5) << dtype_name(dtype) << m << trans;
        EXPECT_LT(max_difference(output_of(call), plain), 1e-5) << dtype_name(dtype) << m << trans;
      }
    }
  }
}

}  // namespace
}  // namespace sprun::graph
