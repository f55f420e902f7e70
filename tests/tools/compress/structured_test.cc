// Removing neurons, heads and layers: the choice, the refit against a plain implementation, whole models.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <Eigen/LU>

#include "graph/onnx/onnx_reader.h"
#include "tests/tools/compress/test_util.h"
#include "tools/compress/compress.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/unit_choice.h"
#include "tools/compress/unit_flow.h"
#include "tools/modelgen/modelgen.h"

namespace sprun::compress {
namespace {

Result<Report> compress(graph::OnnxModel& model, const std::string& recipe_text, const Calibration& calibration) {
  Recipe recipe;
  SPRUN_TRY(read_recipe(recipe_text, recipe));
  ThreadPool pool(2);
  return compress_model(model, recipe, calibration, pool, {});
}

std::string prune(const std::string& spec) { return R"({"steps": [{"prune": ")" + spec + R"("}]})"; }

Matrix constant(const graph::OnnxModel& model, const std::string& name) {
  return matrix_of(*model.graph->constant(model.graph->find_value(name)));
}

// --- a network of one hidden layer: y = x + relu(x W1 + b1) W2 + b2 (gemm: the same as two Gemm)

graph::OnnxModel network(int64_t width, int64_t hidden, bool gemm, bool bias = true) {
  graph::OnnxModel model;
  model.graph = std::make_unique<graph::Graph>();
  graph::Graph& g = *model.graph;
  const auto x = g.add_input("x", DType::kF32, std::vector<graph::DimInfo>{{-1, "batch"}, {width, ""}});
  const auto w1 = g.add_constant("w1", tensor_of(random_matrix(width, hidden, 1) * 0.4));
  const auto w2 = g.add_constant("w2", tensor_of(random_matrix(hidden, width, 2)));
  const auto vector = [&](const char* name, int64_t n, uint64_t seed) {
    Tensor t = Tensor::allocate(DType::kF32, Shape{n}).value();
    const Matrix values = random_matrix(1, n, seed);
    for (int64_t i = 0; i < n; ++i) static_cast<float*>(t.mutable_view().data)[i] = static_cast<float>(values(0, i));
    return g.add_constant(name, std::move(t));
  };
  const auto b1 = vector("b1", hidden, 3), b2 = vector("b2", width, 4);
  const auto linear = [&](graph::ValueId in, graph::ValueId w, graph::ValueId b, const std::string& name, bool with_bias) {
    if (gemm) return add_op(g, "Gemm", {in, w, b}, name);
    const auto product = add_op(g, "MatMul", {in, w}, name);
    return with_bias ? add_op(g, "Add", {b, product}, name + "_add") : product;
  };
  const auto up = add_op(g, "Relu", {linear(x, w1, b1, "up", true)}, "relu");
  g.set_outputs({add_op(g, "Tanh", {add_op(g, "Add", {linear(up, w2, b2, "down", bias), x}, "sum")}, "tanh")});
  return model;
}

// Removes the units of lowest variance times squared norm, fits the rest by the normal equations with an intercept.
TEST(Structured, NeuronsAndRefitAsAPlainImplementationGivesThem) {
  const int64_t width = 24, hidden = 40, gone = 20;
  for (const bool gemm : {false, true}) {
    graph::OnnxModel model = network(width, hidden, gemm), original = network(width, hidden, gemm);
    const Calibration calibration = small_calibration(3, 50, 7);
    const Report report = compress(model, prune("ffn:0.5@even,tile1"), calibration).value();

    Matrix a(150, hidden);
    const Matrix w1 = constant(original, "w1"), w2 = constant(original, "w2"), b1 = constant(original, "b1");
    for (int64_t b = 0; b < 3; ++b) {
      const Matrix x = matrix_of(calibration.batches[static_cast<size_t>(b)].inputs[0]);
      a.middleRows(50 * b, 50) = ((x * w1).rowwise() + b1.row(0)).cwiseMax(0);
    }
    const Eigen::RowVectorXd mean = a.colwise().mean();
    const Matrix centred = a.rowwise() - mean;
    std::vector<std::pair<double, Eigen::Index>> scores;
    for (int64_t j = 0; j < hidden; ++j) scores.emplace_back(centred.col(j).squaredNorm() * w2.row(j).squaredNorm(), j);
    std::sort(scores.begin(), scores.end());
    std::vector<Eigen::Index> kept;
    for (size_t i = gone; i < scores.size(); ++i) kept.push_back(scores[i].second);
    std::sort(kept.begin(), kept.end());

    EXPECT_TRUE(constant(model, "w1").isApprox(w1(Eigen::all, kept)));
    EXPECT_TRUE(constant(model, "b1").isApprox(b1(Eigen::all, kept)));
    // The ridge pulls towards the old weights: min ||C_J (W' - W_J) - C_P W_P||^2 + d ||W' - W_J||^2.
    const Matrix c = centred.transpose() * centred / 150;
    Matrix damped = c(kept, kept);
    damped.diagonal().array() += 0.01 * c(kept, kept).diagonal().mean();
    Matrix others = w2;
    for (Eigen::Index j : kept) others.row(j).setZero();
    const Matrix expected = w2(kept, Eigen::all) + damped.inverse() * c(kept, Eigen::all) * others;
    EXPECT_LE((constant(model, "w2") - expected).cwiseAbs().maxCoeff(), 1e-4 * expected.cwiseAbs().maxCoeff());
    const Matrix bias = constant(original, "b2") + mean * w2 - mean(kept) * expected;
    EXPECT_LE((constant(model, "b2") - bias).cwiseAbs().maxCoeff(), 1e-4);

    const Matrix y = a * w2, now = (a(Eigen::all, kept) * expected).rowwise() + (mean * w2 - mean(kept) * expected);
    const LayerReport& down = report.layers.at(1);
    EXPECT_NEAR(down.error.value(), (y - now).norm() / y.norm(), 1e-4);
    EXPECT_EQ(down.after.inputs, 20);
    EXPECT_EQ(report.layers.at(0).after.outputs, 20);
    EXPECT_EQ(report.after().macs, report.before().macs / 2);
    EXPECT_NE(down.note.find("20 of 40 neurons kept"), std::string::npos) << down.note;
  }
}

TEST(Structured, NeuronsThatAreZeroAnywayGoWithoutATrace) {
  graph::OnnxModel model = network(24, 40, false, false);
  graph::Graph& g = *model.graph;
  Matrix w1 = constant(model, "w1"), b1 = constant(model, "b1");
  std::vector<Eigen::Index> kept;
  for (Eigen::Index j = 0; j < 40; ++j) {
    if (j % 5 == 2) w1.col(j).setZero(), b1(0, j) = -1;  // relu(-1)
    else kept.push_back(j);
  }
  g.make_constant(g.find_value("w1"), tensor_of(w1));
  g.make_constant(g.find_value("b1"), tensor_of(b1));
  const Matrix w2 = constant(model, "w2");
  const int nodes = g.num_live_nodes();
  const Report report = compress(model, prune("ffn:0.2@tile1"), small_calibration(2, 60, 9)).value();
  EXPECT_EQ(constant(model, "w2"), Matrix(w2(kept, Eigen::all)));
  EXPECT_EQ(constant(model, "w1"), Matrix(w1(Eigen::all, kept)));
  EXPECT_EQ(g.num_live_nodes(), nodes);  // no bias that is zero
  EXPECT_LE(report.outputs.at(0).relative_error, 1e-6);
  EXPECT_LE(report.layers.at(1).error.value(), 1e-6);
}

// Gate and up in one matrix, cut by Slice at constant bounds.
TEST(Structured, PiecesOfOneMatrixShrinkTogether) {
  graph::OnnxModel model;
  model.graph = std::make_unique<graph::Graph>();
  graph::Graph& g = *model.graph;
  const auto x = g.add_input("x", DType::kF32, std::vector<graph::DimInfo>{{-1, "batch"}, {24, ""}});
  Matrix down = random_matrix(40, 24, 2);
  for (Eigen::Index j = 0; j < 40; j += 2) down.row(j).setZero();
  const auto both = add_op(g, "MatMul", {x, g.add_constant("w1", tensor_of(random_matrix(24, 80, 1) * 0.4))}, "gate_up");
  const auto piece = [&](int64_t first, int64_t end, const std::string& name) {
    std::vector<graph::ValueId> inputs{both};
    for (const int64_t number : {first, end, int64_t{-1}}) {
      Tensor t = Tensor::allocate(DType::kS64, Shape{1}).value();
      t.mutable_view().as<int64_t>()[0] = number;
      inputs.push_back(g.add_constant(g.unique_name(name + "_bound"), std::move(t)));
    }
    return add_op(g, "Slice", inputs, name);
  };
  const auto gate = add_op(g, "Relu", {piece(0, 40, "gate")}, "relu");
  const auto hidden = add_op(g, "Mul", {gate, piece(-40, std::numeric_limits<int64_t>::max(), "up")}, "hidden");
  const auto y = add_op(g, "MatMul", {hidden, g.add_constant("w2", tensor_of(down))}, "down");
  g.set_outputs({add_op(g, "Tanh", {add_op(g, "Add", {y, x}, "sum")}, "tanh")});
  const Report report = compress(model, prune("ffn:0.5@even,tile1"), small_calibration(2, 60, 9)).value();
  EXPECT_LE(report.outputs.at(0).relative_error, 1e-6);
  EXPECT_EQ(constant(model, "w1").cols(), 40);
  EXPECT_EQ(constant(model, "w2").rows(), 20);
}

// The second network reads the weights of the first: it keeps them, the first gets its own.
TEST(Structured, WeightsThatNetworksShareStayForTheOthers) {
  graph::OnnxModel model;
  model.graph = std::make_unique<graph::Graph>();
  graph::Graph& g = *model.graph;
  auto x = g.add_input("x", DType::kF32, std::vector<graph::DimInfo>{{-1, "batch"}, {24, ""}});
  const auto w1 = g.add_constant("w1", tensor_of(random_matrix(24, 40, 1) * 0.4));
  const auto w2 = g.add_constant("w2", tensor_of(random_matrix(40, 24, 2) * 0.4));
  for (const char* i : {"0", "1"}) {
    const auto up = add_op(g, "Relu", {add_op(g, "MatMul", {x, w1}, std::string("up") + i)}, std::string("relu") + i);
    x = add_op(g, "Add", {x, add_op(g, "MatMul", {up, w2}, std::string("down") + i)}, std::string("sum") + i);
  }
  g.set_outputs({add_op(g, "Tanh", {x}, "tanh")});
  const Report report = compress(model, prune("ffn:0.5@even,tile1"), small_calibration(2, 60, 9)).value();
  EXPECT_TRUE(std::isfinite(report.outputs.at(0).relative_error));
  EXPECT_EQ(constant(model, "w1").cols(), 40);
  std::vector<int64_t> inputs;
  for (const LinearLayer& layer : find_linear_layers(g).value()) inputs.push_back(layer.k);
  std::sort(inputs.begin(), inputs.end());
  EXPECT_EQ(inputs, (std::vector<int64_t>{20, 24, 24, 40}));
}

TEST(Structured, ALayerWithoutBiasGetsOneBehindIt) {
  graph::OnnxModel model = network(24, 40, false, false);
  const Report report = compress(model, prune("ffn:0.4@even,tile1,norefit"), small_calibration(2, 60, 9)).value();
  const graph::NodeId down = model.graph->value(model.graph->find_value("down_out")).producer;
  EXPECT_TRUE(model.graph->node(down).is("Add"));  // under the old name
  EXPECT_TRUE(model.graph->producer(model.graph->node(down).inputs[0])->is("MatMul"));
  EXPECT_LT(report.outputs.at(0).relative_error, 0.6);
}

TEST(Structured, CountsAreMultiplesOfTheTileAndKeepTheBudget) {
  const std::vector<Vector> scores = {Vector::LinSpaced(100, 0, 1), Vector::LinSpaced(64, 5, 1000).array().square()};
  const auto even = removal_counts(scores, 0.5, 16, true);
  EXPECT_EQ(even, (std::vector<int64_t>{52, 32}));
  const auto uneven = removal_counts(scores, 0.5, 16, false);
  EXPECT_EQ((100 - uneven[0]) % 16, 0);
  EXPECT_EQ((64 - uneven[1]) % 16, 0);
  EXPECT_NEAR(static_cast<double>(uneven[0] + uneven[1]), 82, 16);
  EXPECT_EQ(removal_counts(scores, 0, 16, false), (std::vector<int64_t>{0, 0}));
  const auto most = removal_counts(scores, 0.99, 16, false);
  EXPECT_EQ(most, (std::vector<int64_t>{84, 48}));
  EXPECT_EQ(removal_counts(std::vector<Vector>{Vector::Zero(1)}, 0.9, 16, false), std::vector<int64_t>{0});
}

TEST(Structured, UnitsPassThroughReshapes) {
  const UnitAxis packed{2, {0, 0, 1, 1, 2, 2}};
  const UnitAxis heads{2, {0, 1, 2}};
  EXPECT_EQ(map_units(Shape{2, 5, 6}, packed, Shape{2, 5, 3, 2}).value(), heads);
  EXPECT_EQ(map_units(Shape{2, 5, 3, 2}, heads, Shape{2, 5, 6}).value(), packed);
  EXPECT_EQ(map_units(Shape{2, 5, 6}, packed, Shape{10, 6}).value(), (UnitAxis{1, packed.unit}));
  EXPECT_EQ(map_units(Shape{1, 2, 3, 5, 4}, {1, {0, 1}}, Shape{1, 6, 5, 4}).value(), (UnitAxis{1, {0, 0, 0, 1, 1, 1}}));
  EXPECT_EQ(map_units(Shape{2, 5, 6}, {2, {0, 1, 2, 0, 1, 2}}, Shape{2, 5, 2, 3}).value(), (UnitAxis{3, {0, 1, 2}}));
  EXPECT_FALSE(map_units(Shape{2, 5, 6}, {2, {0, 1, 2, 3, 4, 5}}, Shape{2, 5, 2, 3}).ok());
  EXPECT_FALSE(map_units(Shape{4, 6}, {1, {0, 0, 0, 1, 1, 1}}, Shape{6, 4}).ok());
}

// --- whole models

modelgen::Config config_of(modelgen::Family family, int opset, int64_t kv_heads = 4) {
  modelgen::Config config;
  config.family = family;
  config.opset = opset;
  config.layers = 3;
  config.hidden = 64;
  config.heads = 4;
  config.kv_heads = kv_heads;
  config.ffn = 96;
  config.vocab = 70;
  config.max_seq = 32;
  config.image = 32;
  config.patch = 8;
  config.labels = family == modelgen::Family::kVit ? 5 : 0;
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

Tensor model_input(const graph::Value& input, std::mt19937_64& rng) {
  constexpr int64_t kBatch = 2, kLength = 9;
  if (input.dtype == DType::kF32) {
    std::vector<int64_t> dims{kBatch};
    for (size_t i = 1; i < input.declared->size(); ++i) dims.push_back(std::max<int64_t>((*input.declared)[i].value, 0));
    Tensor t = Tensor::allocate(DType::kF32, Shape(dims)).value();
    for (int64_t i = 0; i < t.num_elements(); ++i)
      static_cast<float*>(t.mutable_view().data)[i] = static_cast<float>(rng() % 2001) * 1e-3F - 1;
    return t;
  }
  Tensor t = Tensor::allocate(DType::kS64, Shape{kBatch, kLength}).value();
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    int64_t& element = static_cast<int64_t*>(t.mutable_view().data)[i];
    if (input.name.find("mask") != std::string::npos) element = i % kLength < 7 || i < kLength ? 1 : 0;
    else if (input.name == "position_ids") element = i % kLength;
    else element = static_cast<int64_t>(rng() % (input.name == "input_ids" ? 70 : 2));
  }
  return t;
}

Calibration data_for(const graph::Graph& graph) {
  std::mt19937_64 rng(11);
  Calibration calibration;
  calibration.source = "test";
  for (int b = 0; b < 3; ++b) {
    Batch batch;
    batch.samples = 2;
    for (graph::ValueId v : graph.inputs()) batch.inputs.push_back(model_input(graph.value(v), rng));
    (b < 2 ? calibration.batches : calibration.held_out).push_back(std::move(batch));
  }
  return calibration;
}

// Layers that read the units of a network (a: `ffn` inputs) or of an attention, in the order in which they run.
std::vector<LinearLayer> readers(const graph::Graph& graph, bool networks) {
  std::vector<LinearLayer> found;
  for (const LinearLayer& layer : find_linear_layers(graph).value()) {
    const bool is_attention = layer.name.find("/o/") != std::string::npos || layer.name.find("o_proj") != std::string::npos ||
                              layer.name.find("/proj/") != std::string::npos;
    if (networks ? layer.n == 64 && layer.k == 96 : is_attention) found.push_back(layer);
  }
  return found;
}

std::string family_name(const modelgen::Config& config) {
  return "family " + std::to_string(static_cast<int>(config.family)) + " opset " + std::to_string(config.opset);
}

std::vector<modelgen::Config> models() {
  using modelgen::Family;
  return {config_of(Family::kBert, 11),    config_of(Family::kBert, 17),    config_of(Family::kGpt2, 11),
          config_of(Family::kGpt2, 17),    config_of(Family::kLlama, 14),   config_of(Family::kLlama, 17, 2),
          config_of(Family::kVit, 14)};
}

TEST(Structured, NothingAskedForChangesNothing) {
  for (const modelgen::Config& config : models()) {
    graph::OnnxModel model = generated(config), original = generated(config);
    const Calibration calibration = data_for(*model.graph);
    const Report report =
        compress(model, R"({"steps": [{"prune": "ffn:0"}, {"prune": "heads:0"}, {"prune": "layers:0"}]})", calibration).value();
    for (const OutputReport& output : report.outputs) EXPECT_EQ(output.relative_error, 0) << family_name(config);
    EXPECT_EQ(report.before().macs, report.after().macs);
    EXPECT_EQ(model.graph->num_live_nodes(), original.graph->num_live_nodes());
  }
}

// The reading layers ignore half of the units: removing these must leave the outputs alone.
TEST(Structured, UnitsThatNobodyReadsLeaveNoTraceInWholeModels) {
  for (const modelgen::Config& config : models()) {
    for (const bool networks : {true, false}) {
      SCOPED_TRACE(family_name(config) + (networks ? " ffn" : " heads"));
      graph::OnnxModel model = generated(config);
      const int64_t groups = config.family == modelgen::Family::kLlama ? config.kv_heads : config.heads;
      int count = 0;
      for (LinearLayer layer : readers(*model.graph, networks)) {
        Matrix w = read_weight(*model.graph, layer);
        const int64_t width = networks ? 1 : 64 / groups;
        for (int64_t j = 0; j < layer.k; ++j) {
          if ((j / width + count) % 2 == 0) w.col(j).setZero();
        }
        ++count;
        write_weight(*model.graph, layer, w).value();
      }
      ASSERT_EQ(count, 3);
      const Calibration calibration = data_for(*model.graph);
      const auto result = compress(model, prune(networks ? "ffn:0.5@even" : "heads:0.5@even"), calibration);
      ASSERT_TRUE(result.ok()) << result.status().message();
      for (const OutputReport& output : result->outputs) EXPECT_LE(output.relative_error, 2e-5);
      for (const LinearLayer& layer : find_linear_layers(*model.graph).value()) {
        const bool reads = layer.name.find(networks ? "f2" : "o_proj") != std::string::npos;
        EXPECT_TRUE(!reads || layer.k == (networks ? 48 : 32)) << layer.k;
      }
      EXPECT_LT(result->after().macs, result->before().macs);
    }
  }
}

TEST(Structured, ALayerThatAddsNothingIsTheOneThatGoes) {
  for (const modelgen::Config& config : models()) {
    SCOPED_TRACE(family_name(config));
    graph::OnnxModel model = generated(config);
    for (const bool networks : {true, false}) {
      LinearLayer layer = readers(*model.graph, networks).at(1);
      write_weight(*model.graph, layer, read_weight(*model.graph, layer) * 1e-6).value();
    }
    const auto before = find_linear_layers(*model.graph).value().size();
    const auto result = compress(model, prune("layers:1"), data_for(*model.graph));
    ASSERT_TRUE(result.ok()) << result.status().message();
    const auto gone = static_cast<int64_t>(before - find_linear_layers(*model.graph).value().size());
    EXPECT_EQ(gone, std::count_if(result->layers.begin(), result->layers.end(),
                                  [](const LayerReport& layer) { return layer.after.outputs == 0; }));
    EXPECT_GE(gone, 4);
    EXPECT_EQ(result->outputs.at(0).name, model.graph->value(model.graph->outputs()[0]).name);
    // Biases of the layer stay out of the sum, the norms of a post-norm layer too: close, not equal.
    EXPECT_GT(result->outputs.at(0).cosine, 0.9);
  }
}

TEST(Structured, TheLastLayerCanGoToo) {
  graph::OnnxModel model = generated(config_of(modelgen::Family::kBert, 11));
  const auto result = compress(model, R"({"steps": [{"prune": "layers:2"}], "skip": ["/layers.1/*"]})", data_for(*model.graph));
  ASSERT_TRUE(result.ok()) << result.status().message();
  for (const LayerReport& layer : result->layers) {
    EXPECT_EQ(layer.after.outputs > 0, layer.name.find("layers.1/") != std::string::npos || layer.name.find("pooler") != std::string::npos);
  }
}

TEST(Structured, StepsFollowEachOther) {
  graph::OnnxModel model = generated(config_of(modelgen::Family::kLlama, 14, 2));
  const Report report = compress(model, R"({"steps": [{"prune": "layers:1"}, {"prune": "heads:0.5@even"},
      {"prune": "ffn:0.5"}, {"prune": "4x1:0.5@magnitude"}, {"quantize": "int8"}]})", data_for(*model.graph)).value();
  EXPECT_LT(report.after().macs, report.before().macs / 4);
  EXPECT_TRUE(std::isfinite(report.outputs.at(0).relative_error));
}

TEST(Structured, MistakesAreNamedBeforeAnythingRuns) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"steps": [{"prune": "ffn:1"}]})", "from 0 to below 1"},
      {R"({"steps": [{"prune": "ffn:x"}]})", "'x'"},
      {R"({"steps": [{"prune": "heads:0.5@odd"}]})", "even, norefit, tileN"},
      {R"({"steps": [{"prune": "ffn:0.5@"}]})", "option"},
      {R"({"steps": [{"prune": "layers:-1"}]})", "-1"},
      {R"({"steps": [{"prune": "layers:0.5"}]})", "0.5"},
      {R"({"steps": [{"prune": "layers:3"}]})", "3 layers, of which 2"},
      {R"({"steps": [{"prune": "ffn:0.5", "layers": "nobody"}]})", "nobody"},
      {R"({"steps": [{"prune": "ffn:0.5"}], "skip": ["nobody"]})", "nobody"}};
  for (const auto& [recipe, word] : cases) {
    graph::OnnxModel model = generated(config_of(modelgen::Family::kBert, 14));
    const auto result = compress(model, recipe, data_for(*model.graph));
    ASSERT_FALSE(result.ok()) << recipe;
    EXPECT_EQ(result.status().code(), Code::kUsage) << recipe;
    EXPECT_NE(result.status().message().find(word), std::string::npos) << result.status().message();
  }
  for (const char* spec : {"ffn:0.5", "heads:0.5", "layers:1"}) {
    graph::OnnxModel model = generated(config_of(modelgen::Family::kBert, 14));
    EXPECT_NE(compress(model, prune(spec), {}).status().message().find("--calibration"), std::string::npos);
  }
}

TEST(Structured, WhatCannotBeRewrittenIsRefusedWithTheReason) {
  const auto no_networks = [] {
    graph::OnnxModel model;
    model.graph = std::make_unique<graph::Graph>(small_graph(1));
    return model;
  };
  graph::OnnxModel plain = no_networks();
  const auto heads = compress(plain, prune("heads:0.5"), small_calibration(2, 20, 1));
  EXPECT_EQ(heads.status().code(), Code::kBadModel);
  const auto layers = compress(plain, prune("layers:1"), small_calibration(2, 20, 1));
  EXPECT_EQ(layers.status().code(), Code::kBadModel);

  // Hidden values that leave the model.
  graph::OnnxModel shown = network(24, 40, false);
  shown.graph->set_outputs({shown.graph->outputs()[0], shown.graph->find_value("relu_out")});
  const Status status = compress(shown, prune("ffn:0.5"), small_calibration(2, 20, 1)).status();
  EXPECT_EQ(status.code(), Code::kBadModel);
  EXPECT_NE(status.message().find("'relu_out' is an output of the model"), std::string::npos) << status.message();
}

}  // namespace
}  // namespace sprun::compress
