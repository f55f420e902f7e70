// Normalisation ops: the float32 kernels against double, optional inputs and outputs, shapes that
// do not fit.
#include "tests/graph/ops/product_test_util.h"

namespace sprun::graph {
namespace {

using testing_support::as_double;
using testing_support::max_difference;
using testing_support::NodeCall;
using testing_support::output_of;
using testing_support::random_tensor;
using testing_support::run_node;
using testing_support::tensor_of;

// Largest difference between a float32 node and the same node in double, over all outputs.
double error_of(const NodeCall& call) {
  NodeCall exact = call;
  for (Tensor& input : exact.inputs) {
    if (input.dtype() == DType::kF32) input = as_double(input);
  }
  const auto got = run_node(call), want = run_node(exact);
  EXPECT_TRUE(got.ok()) << got.status().message();
  EXPECT_TRUE(want.ok()) << want.status().message();
  if (!got.ok() || !want.ok()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < got->size(); ++i)
    worst = std::max(worst, max_difference((*got)[i], (*want)[i]));
  return worst;
}

TEST(LayerNormalization, EqualsDoubleForEveryAxis) {
  for (int64_t axis : {-1, 0, 1, 2}) {
    const Shape x{3, 5, 37};
    const Shape scale(x.dims().subspan(static_cast<size_t>((axis + 3) % 3)));
    NodeCall call = {.op = "LayerNormalization",
                     .inputs = {random_tensor<float>(x, 1), random_tensor<float>(scale, 2),
                                random_tensor<float>(scale, 3)},
                     .attrs = {{"axis", axis}},
                     .num_outputs = 3};
    EXPECT_LE(error_of(call), 2e-5) << axis;
  }
}

TEST(LayerNormalization, ScaleMayBroadcast) {
  NodeCall call = {.op = "LayerNormalization",
                   .inputs = {random_tensor<float>({2, 3, 4}, 1), random_tensor<float>({3, 1}, 2)},
                   .attrs = {{"axis", int64_t{1}}}};
  EXPECT_LE(error_of(call), 2e-5);
  call.inputs[1] = random_tensor<float>({5}, 2);
  EXPECT_FALSE(run_node(call).ok());
  call.inputs[1] = random_tensor<float>({4}, 2);
  call.attrs = {{"axis", int64_t{3}}};
  EXPECT_FALSE(run_node(call).ok());
}

TEST(RmsNormalization, EqualsDouble) {
  NodeCall call = {.op = "RMSNormalization",
                   .inputs = {random_tensor<float>({4, 65}, 1), random_tensor<float>({65}, 2)}};
  EXPECT_LE(error_of(call), 2e-5);
}

TEST(SkipLayerNormalization, AddsSkipAndBiasAndGivesTheSum) {
  NodeCall call = {.domain = "com.microsoft",
                   .op = "SkipLayerNormalization",
                   .inputs = {random_tensor<float>({2, 3, 33}, 1), random_tensor<float>({3, 33}, 2),
                              random_tensor<float>({33}, 3), random_tensor<float>({33}, 4),
                              random_tensor<float>({33}, 5)},
                   .num_outputs = 4};
  EXPECT_LE(error_of(call), 2e-5);
  const auto outputs = run_node(call).value();
  EXPECT_FLOAT_EQ(outputs[3].as<float>()[33 * 4 + 5], call.inputs[0].as<float>()[33 * 4 + 5] +
                                                          call.inputs[1].as<float>()[33 + 5] +
                                                          call.inputs[4].as<float>()[5]);
  call.inputs[1] = random_tensor<float>({2, 33}, 2);
  EXPECT_FALSE(run_node(call).ok());
}

TEST(SkipSimplifiedLayerNormalization, EqualsDouble) {
  NodeCall call = {.domain = "com.microsoft",
                   .op = "SkipSimplifiedLayerNormalization",
                   .inputs = {random_tensor<float>({6, 48}, 1), random_tensor<float>({6, 48}, 2),
                              random_tensor<float>({48}, 3)}};
  EXPECT_LE(error_of(call), 2e-5);
}

TEST(EmbedLayerNormalization, RefusesIdsOutsideTheTables) {
  NodeCall call = {
      .domain = "com.microsoft",
      .op = "EmbedLayerNormalization",
      .inputs = {tensor_of<int32_t>({1, 2}, {0, 3}), Tensor(), random_tensor<float>({4, 8}, 1),
                 random_tensor<float>({2, 8}, 2), Tensor(), random_tensor<float>({8}, 3),
                 random_tensor<float>({8}, 4)}};
  EXPECT_LE(error_of(call), 2e-5);
  call.inputs[0] = tensor_of<int32_t>({1, 2}, {0, 4});
  EXPECT_FALSE(run_node(call).ok());
  call.inputs[0] = tensor_of<int32_t>({1, 2}, {-1, 0});
  EXPECT_FALSE(run_node(call).ok());
  call.inputs[0] = tensor_of<int32_t>({1, 3}, {0, 0, 0});
  EXPECT_FALSE(run_node(call).ok()) << "more tokens than positions";
}

TEST(GroupNormalization, ScaleIsPerGroupBeforeOpset21) {
  NodeCall call = {.op = "GroupNormalization",
                   .inputs = {random_tensor<float>({2, 6, 5}, 1), random_tensor<float>({3}, 2),
                              random_tensor<float>({3}, 3)},
                   .attrs = {{"num_groups", int64_t{3}}},
                   .version = 18};
  EXPECT_LE(error_of(call), 2e-5);
  call.version = 21;
  EXPECT_FALSE(run_node(call).ok());
  call.inputs[1] = random_tensor<float>({6}, 2);
  call.inputs[2] = random_tensor<float>({6}, 3);
  EXPECT_LE(error_of(call), 2e-5);
  call.attrs = {{"num_groups", int64_t{0}}};
  EXPECT_FALSE(run_node(call).ok());
  call.attrs = {{"num_groups", int64_t{4}}};
  EXPECT_FALSE(run_node(call).ok());
}

TEST(BatchNormalization, TrainingGivesRunningStatistics) {
  NodeCall call = {.op = "BatchNormalization",
                   .inputs = {tensor_of<float>({2, 1, 2}, {1, 2, 3, 6}), tensor_of<float>({1}, {2}),
                              tensor_of<float>({1}, {1}), tensor_of<float>({1}, {0}),
                              tensor_of<float>({1}, {1})},
                   .attrs = {{"training_mode", int64_t{1}}, {"momentum", 0.5F}, {"epsilon", 0.0F}},
                   .num_outputs = 3,
                   .version = 15};
  const auto outputs = run_node(call).value();
  EXPECT_FLOAT_EQ(outputs[1].as<float>()[0], 1.5F);            // (0 + 3) / 2
  EXPECT_FLOAT_EQ(outputs[2].as<float>()[0], (1 + 3.5F) / 2);  // variance (4 + 1 + 0 + 9) / 4
  EXPECT_FLOAT_EQ(outputs[0].as<float>()[2], 1.0F);            // at the mean
}

TEST(LpNormalization, ZerosStayZero) {
  NodeCall call = {.op = "LpNormalization", .inputs = {tensor_of<float>({2, 2}, {0, 0, 3, 4})}};
  const Tensor y = output_of(call);
  EXPECT_EQ(y.as<float>()[0], 0.0F);
  EXPECT_FLOAT_EQ(y.as<float>()[3], 0.8F);
}

TEST(Norm, EmptyTensorsAreHarmless) {
  NodeCall call = {.op = "LayerNormalization",
                   .inputs = {random_tensor<float>({0, 4}, 1), random_tensor<float>({4}, 2)}};
  EXPECT_EQ(output_of(call).num_elements(), 0);
  call.inputs = {random_tensor<float>({3, 0}, 1), random_tensor<float>({0}, 2)};
  EXPECT_EQ(output_of(call).num_elements(), 0);
  call = {.op = "MeanVarianceNormalization", .inputs = {random_tensor<float>({0, 2, 3, 4}, 1)}};
  EXPECT_EQ(output_of(call).num_elements(), 0);
}

}  // namespace
}  // namespace sprun::graph
