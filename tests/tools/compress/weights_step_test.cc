// The weights step on small graphs: what is touched, what each layer learns from, forms of int8.
#include <gtest/gtest.h>

#include <cmath>

#include "graph/onnx/onnx_reader.h"
#include "tests/tools/compress/test_util.h"
#include "tools/compress/compare_outputs.h"
#include "tools/compress/compress.h"
#include "tools/compress/graph_runner.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/prune.h"
#include "tools/compress/step.h"

namespace sprun::compress {
namespace {

graph::OnnxModel small_model(uint64_t seed = 1) {
  graph::OnnxModel model;
  model.graph = std::make_unique<graph::Graph>(small_graph(seed));
  return model;
}

Result<Report> compress(graph::OnnxModel& model, const std::string& recipe_text,
                        const Calibration& calibration = {}) {
  Recipe recipe;
  SPRUN_TRY(read_recipe(recipe_text, recipe));
  ThreadPool pool(2);
  return compress_model(model, recipe, calibration, pool, {});
}

Matrix weight(const graph::OnnxModel& model, const std::string& name) {
  return matrix_of(*model.graph->constant(model.graph->find_value(name)));
}

double zeros(const Matrix& m) {
  return static_cast<double>((m.array() == 0).count()) / static_cast<double>(m.size());
}

TEST(WeightsStep, NothingAskedForChangesNothing) {
  for (const char* recipe : {R"({})", R"({"steps": [{"prune": "unstructured:0"}]})",
                             R"({"steps": [{"prune": "4x1:0.5@magnitude"}], "skip": ["*"]})"}) {
    graph::OnnxModel model = small_model(), original = small_model();
    const Report report = compress(model, recipe, small_calibration(2, 40, 5)).value();
    for (const char* name : {"w1", "w2", "w3"})
      EXPECT_EQ(weight(model, name), weight(original, name)) << recipe;
    EXPECT_EQ(report.outputs.at(0).relative_error, 0);
    EXPECT_EQ(report.before().macs, report.after().macs);
  }
}

TEST(WeightsStep, TheLastMatchOfALayerCountsAndSkipWins) {
  graph::OnnxModel model = small_model();
  const Report report = compress(model, R"({"steps": [{"prune": "unstructured:0.5@magnitude"},
      {"prune": "2:4@magnitude", "layers": "sec*"}], "skip": ["side"]})")
                            .value();
  EXPECT_DOUBLE_EQ(zeros(weight(model, "w1")), 0.5);
  const Matrix second = weight(model, "w2").transpose();
  for (int64_t r = 0; r < second.rows(); ++r) {
    for (int64_t c = 0; c < second.cols(); c += 4)
      EXPECT_EQ((second.row(r).segment(c, 4).array() != 0).count(), 2);
  }
  EXPECT_EQ(zeros(weight(model, "w3")), 0);
  EXPECT_EQ(report.layers.at(0).action, "unstructured:0.5@magnitude");
  EXPECT_EQ(report.layers.at(2).note, "skipped");
  EXPECT_FALSE(report.layers.at(0).error.has_value());  // without data nothing is known
}

// Each layer's inputs, computed with whole-graph runs of the graph as it is at that time.
TEST(WeightsStep, EveryLayerLearnsFromWhatItsCompressedPredecessorsGive) {
  const Calibration calibration = small_calibration(3, 50, 7);
  graph::OnnxModel model = small_model(), expected = small_model();
  const std::string spec = "unstructured:0.6@sparsegpt";
  compress(model, R"({"steps": [{"prune": ")" + spec + R"("}]})", calibration).value();

  ThreadPool pool(1);
  std::vector<LinearLayer> layers = find_linear_layers(*expected.graph).value();
  for (LinearLayer& layer : layers) {
    InputStatistics statistics(layer.k);
    for (const Batch& batch : calibration.batches) {
      Matrix x = matrix_of(batch.inputs[0]);
      if (layer.x != expected.graph->inputs()[0]) {
        const graph::ValueId from[] = {expected.graph->inputs()[0]}, to[] = {layer.x};
        GraphRunner runner =
            GraphRunner::create(*extract_part(*expected.graph, from, to), pool, SparseMode::kOff)
                .value();
        const ConstTensorView view = batch.inputs[0].view();
        x = matrix_of(runner.run({&view, 1}).value().at(0));
      }
      const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> gram =
          (x.transpose() * x).cast<float>();
      statistics.add(x.rows(), gram.data(), 0, 0);
    }
    Matrix w = read_weight(*expected.graph, layer);
    PruneProblem problem{parse_prune_spec(spec).value(), &statistics, 0.01, {}, &pool};
    PruneOutcome outcome;
    prune_sparsegpt(problem, w, outcome).value();
    write_weight(*expected.graph, layer, w).value();
  }
  for (const char* name : {"w1", "w2", "w3"}) {
    const Matrix got = weight(model, name), want = weight(expected, name);
    EXPECT_LE((got - want).cwiseAbs().maxCoeff(), 1e-3 * want.cwiseAbs().maxCoeff()) << name;
  }
}

TEST(WeightsStep, Int8RunsAndStaysClose) {
  for (const char* mode : {"int8", "int8:static"}) {
    graph::OnnxModel model = small_model();
    const Report report =
        compress(model, std::string(R"({"steps": [{"quantize": ")") + mode + R"("}]})",
                 small_calibration(4, 64, 9))
            .value();
    EXPECT_GT(report.outputs.at(0).cosine, 0.995) << mode;
    EXPECT_LT(report.outputs.at(0).cosine, 1) << mode;
    int products = 0, quantizers = 0;
    for (graph::NodeId n = 0; n < model.graph->num_nodes(); ++n) {
      const graph::Node& node = model.graph->node(n);
      if (node.dead) continue;
      products += node.is("MatMulInteger") || (node.is("MatMul") && std::string(mode) != "int8");
      quantizers += node.is("DynamicQuantizeLinear") || node.is("QuantizeLinear");
    }
    EXPECT_EQ(products, 3) << mode;
    EXPECT_EQ(quantizers, 2) << mode;  // "first" and "side" share theirs
  }
}

// Names are taken from values of a graph that grows meanwhile.
TEST(WeightsStep, NodesOfManyInt8LayersAreNamedAfterTheirInputs) {
  constexpr int kLayers = 40;
  graph::OnnxModel model;
  model.opsets[""] = 13;
  graph::Graph g;
  auto x = g.add_input("a_name_too_long_for_the_text_object_itself", DType::kF32,
                       std::vector<graph::DimInfo>{{-1, "batch"}, {8, ""}});
  for (int i = 0; i < kLayers; ++i) {
    const auto w = g.add_constant("w" + std::to_string(i), tensor_of(random_matrix(8, 8, 1)));
    const std::string name = "the_layer_with_the_number_" + std::to_string(i);
    x = add_op(g, "Tanh", {add_op(g, "MatMul", {x, w}, name)}, name + "_tanh");
  }
  g.set_outputs({x});
  model.graph = std::make_unique<graph::Graph>(std::move(g));
  compress(model, R"({"steps": [{"quantize": "int8"}]})").value();
  int quantizers = 0;
  for (graph::NodeId n = 0; n < model.graph->num_nodes(); ++n) {
    const graph::Node& node = model.graph->node(n);
    if (node.dead || !node.is("DynamicQuantizeLinear")) continue;
    EXPECT_EQ(node.name, model.graph->value(node.input(0)).name + "_quantized");
    ++quantizers;
  }
  EXPECT_EQ(quantizers, kLayers);
}

TEST(WeightsStep, PrunedAndQuantisedZerosStayZero) {
  graph::OnnxModel model = small_model();
  const Report report =
      compress(model, R"({"steps": [{"prune": "4x1:0.5"}, {"quantize": "int8"}]})",
               small_calibration(4, 64, 9))
          .value();
  for (const LayerReport& layer : report.layers) {
    EXPECT_GE(layer.after.zeros, layer.after.parameters() / 2) << layer.name;
    EXPECT_EQ(layer.action, "4x1:0.5@sparsegpt, int8");
    EXPECT_EQ(layer.after.bytes, layer.after.parameters() + 4 * layer.after.outputs);
  }
}

TEST(WeightsStep, AWeightThatATableSharesStaysWhereItIs) {
  graph::OnnxModel model = small_model();
  graph::Graph& g = *model.graph;
  const auto index = g.add_input("index", DType::kS64, std::vector<graph::DimInfo>{{-1, "batch"}});
  const auto looked_up = add_op(g, "Gather", {g.find_value("w1"), index}, "gather");
  g.set_outputs({g.outputs()[0], looked_up});
  const Matrix before = weight(model, "w1");
  compress(model, R"({"steps": [{"prune": "unstructured:0.5@magnitude"}]})").value();
  EXPECT_EQ(weight(model, "w1"), before);
  EXPECT_DOUBLE_EQ(zeros(weight(model, "w1_compressed")), 0.5);
}

TEST(WeightsStep, TheOutputLayerIsPrunedOnlyWhenNamed) {
  for (const bool named : {false, true}) {
    graph::OnnxModel model = small_model();
    model.graph->set_outputs({model.graph->find_value("sum_out")});
    model.graph->set_outputs({model.graph->find_value("first_out")});
    const std::string layers = named ? R"(, "layers": "first")" : "";
    const Report report =
        compress(model, R"({"steps": [{"prune": "unstructured:0.5@magnitude")" + layers + "}]}")
            .value();
    EXPECT_EQ(zeros(weight(model, "w1")), named ? 0.5 : 0);
    EXPECT_EQ(report.layers.at(0).note.empty(), named);
  }
}

TEST(WeightsStep, MistakesAreNamedBeforeAnythingRuns) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"steps": [{"prune": "4x1:0.5"}]})", "--calibration"},
      {R"({"steps": [{"quantize": "int8:static"}]})", "--calibration"},
      {R"({"steps": [{"prune": "4x1:0.5@magnitude", "layers": "third"}]})",
       "no linear layer is called 'third'"},
      {R"({"steps": [{"prune": "4x1:0.5@magnitude"}], "skip": ["nobody"]})", "nobody"},
      {R"({"steps": [{"prune": "4x1:1.5@magnitude"}]})", "1.5"},
      {R"({"steps": [{"quantize": "int3"}]})", "int3"},
      {R"({"steps": [{"squeeze": "0.5"}]})", "squeeze"},
      {R"({"steps": [{"layers": "a"}]})", "nothing to do"},
      {R"({"step": []})", "step"},
      {R"([)", "JSON"}};
  for (const auto& [recipe, word] : cases) {
    graph::OnnxModel model = small_model();
    const auto result = compress(model, recipe);
    ASSERT_FALSE(result.ok()) << recipe;
    EXPECT_EQ(result.status().code(), Code::kUsage) << recipe;
    EXPECT_NE(result.status().message().find(word), std::string::npos) << result.status().message();
  }
}

TEST(WeightsStep, StopsWhenAsked) {
  graph::OnnxModel model = small_model();
  Recipe recipe;
  read_recipe(R"({"steps": [{"prune": "4x1:0.5"}]})", recipe).value();
  ThreadPool pool(1);
  std::stop_source stop;
  CompressOptions options;
  options.stop = stop.get_token();
  options.progress = [&](double, const std::string&) { stop.request_stop(); };
  const auto result = compress_model(model, recipe, small_calibration(2, 32, 3), pool, options);
  EXPECT_EQ(result.status().code(), Code::kCancelled);
}

TEST(Recipe, ReadsWhatItWrites) {
  Recipe recipe;
  const std::string text =
      R"({"steps":[{"prune":"16x4:0.8","layers":"*ffn*"},{"quantize":"int8"}],"skip":["a*"]})";
  read_recipe(text, recipe).value();
  EXPECT_EQ(recipe_json(recipe), text);
  EXPECT_EQ(parse_recipe_item("prune", "a=b*=2:4").value().layers, "a=b*");
  EXPECT_EQ(parse_recipe_item("prune", "=2:4").status().code(), Code::kUsage);
}

TEST(ActivationWalk, MaskedRowsDoNotCount) {
  graph::Graph g;
  g.add_input("attention_mask", DType::kS64, {});
  Tensor mask = Tensor::zeros(DType::kS64, Shape{2, 3}).value();
  static_cast<int64_t*>(mask.mutable_view().data)[0] = 1;
  static_cast<int64_t*>(mask.mutable_view().data)[4] = 1;
  const Batch batch{{mask}, 2};
  EXPECT_EQ(unmasked_rows(g, batch, Shape{2, 3, 8}), (std::vector<int64_t>{0, 4}));
  EXPECT_TRUE(unmasked_rows(g, batch, Shape{2, 8}).empty());
}

}  // namespace
}  // namespace sprun::compress
