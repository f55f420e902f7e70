// MatMulNBits on kernels against its plain loop, which a g_idx that changes nothing asks for.
#include "tests/graph/ops/product_test_util.h"

namespace sprun::graph {
namespace {

using testing_support::max_difference;
using testing_support::NodeCall;
using testing_support::output_of;
using testing_support::random_tensor;
using testing_support::run_node;

struct Case {
  int64_t m = 1, n = 40, k = 200, bits = 4, block_size = 32;
  enum { kNone, kPacked, kFloat } zeros = kNone;
  bool bias = false;
};

NodeCall make_call(const Case& c) {
  const int64_t blocks = (c.k + c.block_size - 1) / c.block_size;
  NodeCall call = {.domain = "com.microsoft",
                   .op = "MatMulNBits",
                   .inputs = {random_tensor<float>({2, c.m, c.k}, 1),
                              random_tensor<uint8_t>({c.n, blocks, c.block_size * c.bits / 8}, 2),
                              random_tensor<float>({c.n, blocks}, 3)}};
  call.inputs.push_back(c.zeros == Case::kPacked  ? random_tensor<uint8_t>({c.n, (blocks * c.bits + 7) / 8}, 4)
                        : c.zeros == Case::kFloat ? random_tensor<float>({c.n, blocks}, 4)
                                                  : Tensor());
  call.inputs.push_back(Tensor());
  call.inputs.push_back(c.bias ? random_tensor<float>({c.n}, 5) : Tensor());
  call.attrs = {{"N", c.n}, {"K", c.k}, {"bits", c.bits}, {"block_size", c.block_size}};
  call.constants = true;
  return call;
}

Tensor same_groups(const Case& c) {
  Tensor groups = Tensor::allocate(DType::kS32, {c.k}).value();
  for (int64_t k = 0; k < c.k; ++k) groups.mutable_view().as<int32_t>()[k] = static_cast<int32_t>(k / c.block_size);
  return groups;
}

TEST(MatMulNBits, EqualsThePlainLoop) {
  for (int64_t m : {1, 3, 6, 7, 30}) {
    for (int64_t bits : {2, 4, 8}) {
      for (auto zeros : {Case::kNone, Case::kPacked, Case::kFloat}) {
        const Case c = {.m = m, .bits = bits, .zeros = zeros, .bias = m != 3};
        NodeCall call = make_call(c);
        NodeCall plain = call;
        plain.inputs[4] = same_groups(c);
        const Tensor want = output_of(plain);
        for (int threads : {1, 2}) {
          call.threads = threads;
          EXPECT_LT(max_difference(output_of(call), want), 2e-5 * (1 << bits)) << m << " " << bits << " " << zeros;
        }
      }
    }
  }
}

TEST(MatMulNBits, FillsAnOmittedProjectionWithTheBias) {
  NodeCall call = make_call({.bias = true});
  call.inputs[1] = random_tensor<uint8_t>({0, 7, 16}, 1);
  const Tensor y = output_of(call);
  for (int64_t i = 0; i < y.num_elements(); ++i) ASSERT_EQ(y.as<float>()[i], call.inputs[5].as<float>()[i % 40]);
}

TEST(MatMulNBits, RefusesWhatDoesNotFit) {
  const auto refused = [](const std::function<void(NodeCall&)>& change, const char* word) {
    NodeCall call = make_call({});
    change(call);
    const auto result = run_node(call);
    return !result.ok() && result.status().message().find(word) != std::string::npos;
  };
  EXPECT_TRUE(refused([](NodeCall& c) { c.attrs[2].second = int64_t{3}; }, "bits"));
  EXPECT_TRUE(refused([](NodeCall& c) { c.attrs[3].second = int64_t{24}; }, "block_size"));
  EXPECT_TRUE(refused([](NodeCall& c) { c.attrs[1].second = int64_t{-1}; }, "positive"));
  EXPECT_TRUE(refused([](NodeCall& c) { c.attrs[0].second = int64_t{1} << 60; }, "N and K"));
  EXPECT_TRUE(refused([](NodeCall& c) { c.inputs[1] = random_tensor<uint8_t>({40, 6, 16}, 1); }, "B of shape"));
  EXPECT_TRUE(refused([](NodeCall& c) { c.inputs[2] = random_tensor<float>({40, 6}, 1); }, "scales"));
  NodeCall call = make_call({});
  call.inputs[4] = random_tensor<int32_t>({200}, 1);
  EXPECT_FALSE(run_node(call).ok()) << "g_idx out of range";
}

}  // namespace
}  // namespace sprun::graph
