// Statically quantised models in Q/DQ form: every layer computes with codes, and the numbers are those of the graph as
// it is written.
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "graph/ir/graph.h"
#include "sprun/sprun.h"
#include "tests/runtime/session/generated_model.h"

namespace sprun {
namespace {

modelgen::Config qdq_bert(bool per_channel) {
  auto config = modelgen::preset("bert-mini").value();
  config.layers = 2;
  config.vocab = 100;
  config.quantization = modelgen::Quantization::kS8;
  config.qdq = true;
  config.per_channel = per_channel;
  return config;
}

// What explain() says of the steps of one op: "uint8[1,24,256] -> uint8[1,24,256]" and the rest of their lines.
std::vector<std::string> steps_of(const std::string& explain, const std::string& op) {
  std::vector<std::string> steps;
  std::istringstream lines(explain);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("step") && line.find(" " + op + " ") != std::string::npos) steps.push_back(line);
  }
  return steps;
}

size_t count(const std::vector<std::string>& steps, const std::string& text) {
  size_t n = 0;
  for (const std::string& step : steps) n += step.find(text) != std::string::npos;
  return n;
}

double relative_rms(const Tensor& x, const Tensor& y) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < x.num_elements(); ++i) {
    const double a = static_cast<double>(x.as<float>()[i]), b = static_cast<double>(y.as<float>()[i]);
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  return std::sqrt(difference / norm);
}

TEST(Qdq, LinearLayersReadAndWriteCodes) {
  for (const bool per_channel : {false, true}) {
    const GeneratedModel file(qdq_bert(per_channel));
    auto session = Session::create(Model::load(file.path()).value(), {.num_threads = 1}).value();
    bind_all(session, bert_inputs(1, 24));
    const std::string explain = session.explain().value();
    const auto layers = steps_of(explain, "sprun.LinearInt8");
    EXPECT_EQ(count(layers, "  uint8["), layers.size()) << explain;
    EXPECT_EQ(count(layers, "-> uint8[1,24,1024]"), 2U) << explain;  // GELU and requantisation inside
    EXPECT_EQ(count(layers, "-> uint8[1,24,256]"), 2U * 3) << explain;
    EXPECT_EQ(count(layers, "-> float32[1,24,256]"), 2U * 2) << explain;
    EXPECT_TRUE(steps_of(explain, "sprun.Linear").empty() && steps_of(explain, "Gelu").empty()) << explain;
    EXPECT_EQ(count(steps_of(explain, "sprun.AttentionInt8"), "-> uint8[1,24,256]"), 2U) << explain;
    EXPECT_TRUE(steps_of(explain, "Softmax").empty() && steps_of(explain, "Transpose").empty()) << explain;
  }
}

// Sums in another order move some values over the boundary between two codes, no more.
TEST(Qdq, NumbersAreThoseOfTheGraph) {
  const GeneratedModel file(qdq_bert(true));
  ModelOptions plain;
  plain.disabled_passes = {"fuse_qdq_linear", "hoist_quantize", "fuse_linear_epilogue", "fuse_attention"};
  const auto inputs = bert_inputs(2, 21);
  auto fused = Session::create(Model::load(file.path()).value(), {.num_threads = 1}).value();
  auto written = Session::create(Model::load(file.path(), plain).value(), {.num_threads = 1}).value();
  const auto x = fused.run(inputs).value(), y = written.run(inputs).value();
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_LT(relative_rms(x[i].tensor, y[i].tensor), 0.025);
}

Tensor floats(const Shape& shape, float step) {
  Tensor tensor = Tensor::allocate(DType::kF32, shape).value();
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    tensor.mutable_view().as<float>()[i] = std::sin(step * static_cast<float>(i + 1));
  }
  return tensor;
}

Tensor float_scalar(float value) {
  Tensor tensor = Tensor::allocate(DType::kF32, {}).value();
  tensor.mutable_view().as<float>()[0] = value;
  return tensor;
}

// y = Relu(x W^T + b) with W [N, K] quantised and transposed by nodes, and activations without zero points.
graph::Graph layer_of_training_tools() {
  graph::Graph g;
  const auto add = [&](const char* op, std::vector<graph::ValueId> inputs, const char* output) {
    const graph::NodeId n = g.add_node("", op, 17, std::move(inputs), {output});
    g.node(n).name = output;
    return g.node(n).outputs[0];
  };
  const graph::ValueId x = g.add_input("x", DType::kF32, std::vector<graph::DimInfo>{{-1, "rows"}, {64, ""}});
  const graph::ValueId x_scale = g.add_constant("x_scale", float_scalar(0.01F));
  const graph::ValueId w = g.add_constant("w", floats({96, 64}, 0.7F));
  const graph::ValueId w_scale = g.add_constant("w_scale", float_scalar(1.0F / 127));
  const graph::ValueId w_zero = g.add_constant("w_zero", Tensor::zeros(DType::kS8, {}).value());
  const graph::ValueId xd = add("DequantizeLinear", {add("QuantizeLinear", {x, x_scale}, "xq"), x_scale}, "xd");
  const graph::ValueId wq = add("QuantizeLinear", {w, w_scale, w_zero}, "wq");
  const graph::ValueId wt = add("Transpose", {add("DequantizeLinear", {wq, w_scale, w_zero}, "wd")}, "wt");
  const graph::ValueId sum =
      add("Add", {add("MatMul", {xd, wt}, "product"), g.add_constant("b", floats({96}, 0.3F))}, "sum");
  const graph::ValueId y_scale = g.add_constant("y_scale", float_scalar(0.02F));
  const graph::ValueId yq = add("QuantizeLinear", {add("Relu", {sum}, "relu"), y_scale}, "yq");
  const graph::ValueId y = add("DequantizeLinear", {yq, y_scale}, "y");
  g.value(y).dtype = DType::kF32;
  g.value(y).declared = std::vector<graph::DimInfo>{{-1, "rows"}, {96, ""}};
  g.set_outputs({y});
  return g;
}

TEST(Qdq, WeightsMayBeQuantisedAndTransposedByNodes) {
  const GeneratedModel file(layer_of_training_tools());
  ModelOptions plain;
  plain.disabled_passes = {"fuse_qdq_linear"};
  auto fused = Session::create(Model::load(file.path()).value(), {.num_threads = 1}).value();
  auto written = Session::create(Model::load(file.path(), plain).value(), {.num_threads = 1}).value();
  const std::vector<NamedTensor> inputs = {{"x", floats({7, 64}, 0.11F)}};
  bind_all(fused, inputs);
  const std::string explain = fused.explain().value();
  EXPECT_EQ(count(steps_of(explain, "sprun.LinearInt8"), "uint8[7,64] -> uint8[7,96]"), 1U) << explain;
  const Tensor x = fused.run(inputs).value()[0].tensor, y = written.run(inputs).value()[0].tensor;
  for (int64_t i = 0; i < x.num_elements(); ++i) EXPECT_NEAR(x.as<float>()[i], y.as<float>()[i], 0.0201F);
  EXPECT_LT(relative_rms(x, y), 0.005);
}

}  // namespace
}  // namespace sprun
