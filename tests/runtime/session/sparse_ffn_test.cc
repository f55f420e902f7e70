// Models whose feed-forward layers make zeros: recognised, equal to the dense run, their density counted and explained.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/runtime/session/generated_model.h"
#include "tests/support/own_path.h"
#include "tests/support/shared_files.h"

namespace sprun {
namespace {

ModelOptions without_pass() {
  ModelOptions options;
  options.disabled_passes = {"fuse_sparse_ffn"};
  return options;
}

Session open(const std::string& path, const ModelOptions& options = {}, int threads = 1) {
  return Session::create(Model::load(path, options).value(), {.num_threads = threads}).value();
}

// What the model has of token ids, mask and positions.
std::vector<NamedTensor> sentence(const Model& model, const std::vector<int64_t>& ids) {
  std::vector<NamedTensor> inputs;
  const auto length = static_cast<int64_t>(ids.size());
  for (const std::string name : {"input_ids", "attention_mask", "position_ids"}) {
    Tensor tensor = Tensor::allocate(DType::kS64, {1, length}).value();
    for (int64_t i = 0; i < length; ++i) {
      tensor.mutable_view().as<int64_t>()[i] = name == "input_ids" ? ids[static_cast<size_t>(i)] : name == "position_ids" ? i : 1;
    }
    inputs.push_back({name, std::move(tensor)});
  }
  std::erase_if(inputs, [&model](const NamedTensor& input) {
    const auto& specs = model.inputs();
    return std::none_of(specs.begin(), specs.end(), [&](const TensorSpec& spec) { return spec.name == input.name; });
  });
  return inputs;
}

// Largest difference, as a part of the largest value.
double difference(const std::vector<NamedTensor>& a, const std::vector<NamedTensor>& b) {
  double worst = 0, largest = 0;
  for (size_t o = 0; o < a.size(); ++o) {
    for (int64_t i = 0; i < a[o].tensor.num_elements(); ++i) {
      const double x = static_cast<double>(a[o].tensor.as<float>()[i]), y = static_cast<double>(b[o].tensor.as<float>()[i]);
      worst = std::max(worst, std::abs(x - y));
      largest = std::max(largest, std::abs(y));
    }
  }
  return worst / largest;
}

TEST(SparseFfnModel, ARealReluModelIsRecognisedCountedAndEqual) {
  SPRUN_NEED_SHARED("models/use-lite/model.onnx");
  for (const char* file : {"models/use-lite/model.onnx", "models/use-lite/model_int8_dynamic.onnx"}) {
    Session session = open(shared_file(file)), dense = open(shared_file(file), without_pass());
    // Sentences of the vocabulary's common pieces, all lengths from 1 to 24.
    for (int64_t length = 1; length <= 24; ++length) {
      std::vector<int64_t> ids;
      for (int64_t i = 0; i < length; ++i) ids.push_back(9 + (37 * i * i + 101 * length) % 700);
      const std::vector<NamedTensor> inputs = sentence(session.model(), ids);
      EXPECT_LT(difference(session.run(inputs).value(), dense.run(inputs).value()), 1e-5) << file;
    }
    const std::vector<FfnDensity> layers = session.ffn_density();
    ASSERT_EQ(layers.size(), 2U);
    for (const FfnDensity& layer : layers) {
      EXPECT_EQ(layer.pattern, "ReLU FFN");
      EXPECT_LT(layer.expected, 0);
      EXPECT_GT(layer.rows, 60);
      EXPECT_NEAR(layer.measured, 0.075, 0.035) << file;
    }
    EXPECT_TRUE(dense.ffn_density().empty());
    const std::string text = session.explain().value();
    EXPECT_NE(text.find("ReLU FFN: leaving out zeros is exact"), std::string::npos);
    EXPECT_NE(text.find("density measured: "), std::string::npos);
  }
}

ModelOptions with_mode(SparseMode mode) {
  ModelOptions options;
  options.sparse = mode;
  return options;
}

struct DecoderCase {
  modelgen::Ffn ffn;
  const char* pattern;
  double active;
  modelgen::Quantization quantization;
};

modelgen::Config config_of(const DecoderCase& decoder) {
  modelgen::Config config = modelgen::preset("llama-mini").value();
  config.ffn_kind = decoder.ffn;
  config.active = decoder.active;
  config.hidden = 256;
  config.heads = config.kv_heads = 4;
  config.ffn = 1024;
  config.layers = 2;
  config.vocab = 200;
  config.opset = 17;
  config.past = false;
  if (decoder.ffn == modelgen::Ffn::kSpark) config.score_inputs = config.hidden / 2;
  config.quantization = decoder.quantization;
  return config;
}

TEST(SparseFfnModel, GeneratedDecodersOfEveryKind) {
  using modelgen::Ffn;
  using modelgen::Quantization;
  for (Quantization quantization : {Quantization::kNone, Quantization::kS8}) {
    for (const DecoderCase& decoder : {DecoderCase{Ffn::kRelu, "ReLU FFN", 0.1, quantization},
                                       DecoderCase{Ffn::kReGlu, "ReGLU FFN", 0.1, quantization},
                                       DecoderCase{Ffn::kTopK, "statistical top-k FFN", 0.05, quantization},
                                       DecoderCase{Ffn::kSpark, "Spark FFN (split input, statistical top-k)", 0.08, quantization}}) {
      const GeneratedModel file(config_of(decoder));
      for (int64_t length : {1, 5, 30}) {
        std::vector<int64_t> ids;
        for (int64_t i = 0; i < length; ++i) ids.push_back((7 * i + 3) % 200);
        Session dense = open(file.path(), without_pass());
        const std::vector<NamedTensor> inputs = sentence(dense.model(), ids);
        const auto expected = dense.run(inputs).value();
        for (SparseMode mode : {SparseMode::kAuto, SparseMode::kForce}) {
          Session session = open(file.path(), with_mode(mode), 2);
          // Codes of h may differ by one where float sums were added in another order.
          EXPECT_LT(difference(session.run(inputs).value(), expected), quantization == Quantization::kNone ? 1e-4 : 2e-2)
              << decoder.pattern << length;
          const std::vector<FfnDensity> layers = session.ffn_density();
          ASSERT_EQ(layers.size(), 2U) << decoder.pattern;
          EXPECT_EQ(layers[0].pattern, decoder.pattern);
          EXPECT_NEAR(layers[0].measured, decoder.active, 0.05) << decoder.pattern;
          if (mode != SparseMode::kForce) continue;
          EXPECT_EQ(session.explain().value().find("dense path"), std::string::npos) << decoder.pattern;
        }
      }
    }
  }
}

// Weights of MatMulNBits and 8-bit weights with float activations: few rows gather, many stay dense, explain says which.
TEST(SparseFfnModel, CodesWithFloatActivations) {
  for (int nbits : {0, 4, 8}) {
    modelgen::Config config = config_of({modelgen::Ffn::kReGlu, "ReGLU FFN", 0.1, modelgen::Quantization::kNone});
    config.nbits = nbits;
    config.weight_only = nbits == 0;
    if (config.weight_only) config.quantization = modelgen::Quantization::kS8;
    const GeneratedModel file(config);
    for (int64_t length : {1, 5, 12}) {
      std::vector<int64_t> ids;
      for (int64_t i = 0; i < length; ++i) ids.push_back((7 * i + 3) % 200);
      Session dense = open(file.path(), without_pass()), session = open(file.path(), with_mode(SparseMode::kForce), 2);
      const std::vector<NamedTensor> inputs = sentence(dense.model(), ids);
      EXPECT_LT(difference(session.run(inputs).value(), dense.run(inputs).value()), 1e-5) << nbits;
      const std::vector<FfnDensity> layers = session.ffn_density();
      ASSERT_EQ(layers.size(), 2U);
      EXPECT_EQ(layers[0].pattern, "ReGLU FFN");
      EXPECT_NEAR(layers[0].measured, 0.1, 0.05);
      const std::string text = session.explain().value();
      const bool few = length <= 8;
      EXPECT_EQ(text.find("lie neuron by neuron, unchanged") != std::string::npos, few) << text;
      EXPECT_EQ(text.find("12 rows: the dense product answers them for the same bytes") != std::string::npos, !few) << text;
    }
  }
}

TEST(SparseFfnModel, PromisedSparsityThatIsNotThereIsNoted) {
  for (bool promised : {false, true}) {
    graph::Graph graph;
    const auto x = graph.add_input("x", DType::kF32, std::vector<graph::DimInfo>{{4, ""}});
    const auto n = graph.add_node("", "Relu", 14, {x}, {"y"});
    graph.set_outputs({graph.node(n).outputs[0]});
    const std::string path = testing_support::own_path("promised.onnx");
    graph::WriteOptions options;
    options.metadata_props = {{"config", promised ? "{\"activation_sparsity_pattern\": [0.95, 0.0]}" : "{\"activation_sparsity_pattern\": [0.0]}"}};
    graph::write_onnx(graph, path, options).value();
    Session session = open(path);
    const Tensor values = Tensor::zeros(DType::kF32, {4}).value();
    session.bind_input("x", values.view()).value();
    const std::string text = session.explain().value();
    EXPECT_EQ(text.find("the exporter may have left it out") != std::string::npos, promised);
    std::filesystem::remove(path);
  }
}

}  // namespace
}  // namespace sprun
