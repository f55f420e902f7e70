// Statically quantised models in Q/DQ form: every layer computes with codes, and the numbers are those of the graph as
// it is written.
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

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

}  // namespace
}  // namespace sprun
