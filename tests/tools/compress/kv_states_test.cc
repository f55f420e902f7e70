// Decoders with a key/value cache: heads and layers go with their keys and values, and generation goes on.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "graph/onnx/onnx_reader.h"
#include "sprun/generate.h"
#include "tests/runtime/session/generated_model.h"
#include "tests/tools/compress/test_util.h"
#include "tools/compress/compress.h"
#include "tools/compress/graph_edit.h"
#include "tools/compress/kv_states.h"
#include "tools/compress/linear_layers.h"
#include "tools/modelgen/modelgen.h"

namespace sprun::compress {
namespace {

using modelgen::Family;

constexpr int64_t kLayers = 3, kHeads = 8, kVocab = 70;

modelgen::Config config_of(Family family, int64_t kv_heads) {
  modelgen::Config config;
  config.family = family;
  config.layers = kLayers;
  config.hidden = 64;
  config.heads = kHeads;
  config.kv_heads = kv_heads;
  config.ffn = 96;
  config.vocab = kVocab;
  config.max_seq = 48;
  config.past = true;
  return config;
}

graph::OnnxModel generated(const modelgen::Config& config) {
  graph::OnnxModel model;
  model.graph = std::make_unique<graph::Graph>(modelgen::generate(config).value());
  for (graph::NodeId n = 0; n < model.graph->num_nodes(); ++n) {
    graph::Node& node = model.graph->node(n);
    node.def = graph::find_op(node.domain, node.op_type, node.version);
  }
  return model;
}

// `past` tokens are given as keys and values of zeros.
Tensor input_for(const graph::Value& input, int64_t batch, int64_t length, int64_t past, std::mt19937_64& rng) {
  if (input.dtype == DType::kF32) {
    const auto& sizes = *input.declared;
    return Tensor::zeros(DType::kF32, Shape{batch, sizes[1].value, past, sizes[3].value}).value();
  }
  const bool is_mask = input.name.find("mask") != std::string::npos;
  const int64_t columns = is_mask ? length + past : length;
  Tensor t = Tensor::zeros(DType::kS64, Shape{batch, columns}).value();
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    int64_t& element = t.mutable_view().as<int64_t>()[i];
    if (is_mask) element = 1;
    else if (input.name == "position_ids") element = past + i % columns;
    else element = static_cast<int64_t>(rng() % kVocab);
  }
  return t;
}

Calibration data_for(const graph::Graph& graph, int64_t past = 0) {
  std::mt19937_64 rng(11);
  Calibration calibration;
  calibration.source = "test";
  for (int b = 0; b < 3; ++b) {
    Batch batch;
    batch.samples = 4;
    for (graph::ValueId v : graph.inputs()) batch.inputs.push_back(input_for(graph.value(v), 4, 12, past, rng));
    (b < 2 ? calibration.batches : calibration.held_out).push_back(std::move(batch));
  }
  return calibration;
}

Result<Report> prune(graph::OnnxModel& model, const std::string& steps, const Calibration& calibration) {
  Recipe recipe;
  SPRUN_TRY(read_recipe(R"({"steps": [)" + steps + "]}", recipe));
  ThreadPool pool(2);
  return compress_model(model, recipe, calibration, pool, {});
}

// The layer that reads the heads of transformer layer i.
LinearLayer output_projection(const graph::Graph& graph, int64_t i) {
  std::vector<LinearLayer> found;
  for (const LinearLayer& layer : find_linear_layers(graph).value()) {
    const bool reads_heads = layer.name.find("o_proj") != std::string::npos || layer.name.find("/proj/") != std::string::npos;
    if (reads_heads && layer.k == 64 && layer.n == 64) found.push_back(layer);
  }
  EXPECT_EQ(found.size(), static_cast<size_t>(kLayers));
  return found.at(static_cast<size_t>(i));
}

// The model reads nothing of `gone` heads, the first ones, of layer i.
void ignore_heads(graph::Graph& graph, int64_t i, int64_t gone) {
  LinearLayer layer = output_projection(graph, i);
  Matrix w = read_weight(graph, layer);
  w.leftCols(gone * 64 / kHeads).setZero();
  write_weight(graph, layer, w).value();
}

std::vector<int64_t> tokens_of(const graph::Graph& graph) {
  const GeneratedModel file(graph);
  Session session = Session::create(Model::load(file.path()).value(), {.num_threads = 1}).value();
  const GenerateResult result = session.generate(std::vector<int64_t>{5, 17, 3, 42}, {.max_new_tokens = 24}).value();
  EXPECT_TRUE(result.cached) << result.why_not;
  return result.tokens;
}

int64_t cached_heads(const graph::Graph& graph, const std::string& name) {
  const auto& declared = graph.value(graph.find_value(name)).declared;
  return declared ? declared->at(1).value : -1;
}

TEST(KvStates, HeadsGoWithTheirKeysAndValues) {
  for (const auto& [family, kv_heads] : {std::pair{Family::kGpt2, kHeads}, {Family::kLlama, kHeads}, {Family::kLlama, int64_t{4}}}) {
    SCOPED_TRACE(std::to_string(static_cast<int>(family)) + " " + std::to_string(kv_heads));
    graph::OnnxModel model = generated(config_of(family, kv_heads));
    for (int64_t i = 0; i < kLayers; ++i) ignore_heads(*model.graph, i, kHeads / 2);
    const std::vector<int64_t> tokens = tokens_of(*model.graph);
    const auto report = prune(model, R"({"prune": "heads:0.5@even"})", data_for(*model.graph));
    ASSERT_TRUE(report.ok()) << report.status().message();
    ASSERT_EQ(report->outputs.size(), 1u);  // keys and values have lost what is compared
    EXPECT_LE(report->outputs[0].relative_error, 2e-5);
    for (const KvState& state : find_kv_states(*model.graph)) {
      EXPECT_EQ(cached_heads(*model.graph, model.graph->value(state.past).name), kv_heads / 2);
      EXPECT_EQ(cached_heads(*model.graph, model.graph->value(state.present).name), kv_heads / 2);
    }
    EXPECT_EQ(tokens_of(*model.graph), tokens);
  }
}

// Layers may lose different numbers of heads: generation reads the sizes of each state.
TEST(KvStates, LayersMayKeepDifferentNumbersOfHeads) {
  graph::OnnxModel model = generated(config_of(Family::kLlama, 4));
  ignore_heads(*model.graph, 0, 6);
  ignore_heads(*model.graph, 2, 4);
  const std::vector<int64_t> tokens = tokens_of(*model.graph);
  const std::string o_proj = output_projection(*model.graph, 2).name;
  const Report report = prune(model, R"({"prune": "heads:0.5", "layers": ")" + o_proj + R"("}, {"prune": "heads:0.75", "layers": ")" +
                                         output_projection(*model.graph, 0).name + R"("}, {"prune": "ffn:0"})",
                              data_for(*model.graph)).value();
  EXPECT_LE(report.outputs.at(0).relative_error, 2e-5);
  std::vector<int64_t> heads;
  for (const KvState& state : find_kv_states(*model.graph))
    heads.push_back(cached_heads(*model.graph, model.graph->value(state.past).name));
  EXPECT_EQ(heads, (std::vector<int64_t>{1, 1, 4, 4, 2, 2}));
  EXPECT_EQ(tokens_of(*model.graph), tokens);
}

TEST(KvStates, LayersGoWithTheirKeysAndValues) {
  for (Family family : {Family::kGpt2, Family::kLlama}) {
    for (int64_t gone : {0, 2}) {
      SCOPED_TRACE(std::to_string(static_cast<int>(family)) + " layer " + std::to_string(gone));
      graph::OnnxModel model = generated(config_of(family, family == Family::kLlama ? 4 : kHeads));
      const graph::Graph& g = *model.graph;
      const size_t before = find_linear_layers(g).value().size();
      ignore_heads(*model.graph, gone, kHeads);
      const std::string only = output_projection(g, gone).name;
      const auto report = prune(model, R"({"prune": "layers:1", "layers": ")" + only + R"("}, {"prune": "heads:0.25"})", data_for(g));
      ASSERT_TRUE(report.ok()) << report.status().message();
      std::set<std::string> names;
      for (const KvState& state : find_kv_states(g)) names.insert(g.value(state.past).name);
      EXPECT_EQ(names.size(), 4u);
      EXPECT_FALSE(names.contains("past_key_values." + std::to_string(gone) + ".key"));
      EXPECT_EQ(g.outputs().size(), 5u);
      EXPECT_EQ(before - find_linear_layers(g).value().size(), before / kLayers);
      EXPECT_GT(report->outputs.at(0).cosine, 0.3);
      EXPECT_EQ(tokens_of(g).size(), 24u);
    }
  }
}

// With a cache or without, the same tokens: the mask takes its sizes from a state that is left.
TEST(KvStates, AModelWithoutItsFirstLayerGivesWhatOneWithoutACacheGives) {
  std::vector<std::vector<int64_t>> tokens;
  for (const bool past : {true, false}) {
    modelgen::Config config = config_of(Family::kLlama, 4);
    config.past = past;
    graph::OnnxModel model = generated(config);
    const std::string first = output_projection(*model.graph, 0).name;
    prune(model, R"({"prune": "layers:1", "layers": ")" + first + R"("})", data_for(*model.graph)).value();
    const GeneratedModel file(*model.graph);
    Session session = Session::create(Model::load(file.path()).value(), {.num_threads = 1}).value();
    tokens.push_back(session.generate(std::vector<int64_t>{5, 17, 3, 42}, {.max_new_tokens = 24}).value().tokens);
  }
  EXPECT_EQ(tokens[0], tokens[1]);
}

TEST(KvStates, DataWithAPastIsRefusedWhereHeadsGo) {
  graph::OnnxModel model = generated(config_of(Family::kLlama, 4));
  const Calibration data = data_for(*model.graph, 3);
  const Status status = prune(model, R"({"prune": "heads:0.5"})", data).status();
  EXPECT_EQ(status.code(), Code::kBadInput);
  EXPECT_NE(status.message().find("past_key_values.0.key"), std::string::npos) << status.message();
  EXPECT_TRUE(prune(model, R"({"prune": "ffn:0.5"})", data).ok());
}

TEST(KvStates, InputsGoWithoutATrace) {
  graph::OnnxModel model = generated(config_of(Family::kGpt2, kHeads));
  graph::Graph& g = *model.graph;
  const graph::ValueId spare = g.add_input("spare", DType::kS64, {});
  const graph::Graph less = without_inputs(g, {spare});
  EXPECT_EQ(less.num_values(), g.num_values());
  EXPECT_EQ(less.num_live_nodes(), g.num_live_nodes());
  EXPECT_EQ(less.inputs().size() + 1, g.inputs().size());
  EXPECT_FALSE(less.value(spare).is_input);
  const std::vector<std::string> names = input_names(g);
  Batch batch = data_for(g).held_out[0];
  EXPECT_EQ(batch.inputs.size(), names.size());
  EXPECT_EQ(fit_batch(batch, names, less).value().inputs.size(), names.size() - 1);
}

}  // namespace
}  // namespace sprun::compress
