// Scans of single layers, and recipes that follow from them.
#include "tools/compress/scan.h"

#include <gtest/gtest.h>

#include "tests/tools/compress/test_util.h"
#include "tools/compress/layer_times.h"

namespace sprun::compress {
namespace {

ScanLayer layer(const char* name, double dense, double error, double ms) {
  return {
      name, 8, 8, dense, {{0.5, error, ms}, {0.75, 2 * error, ms / 2}, {0.9, 4 * error, ms / 4}}};
}

TEST(RecipeForSpeedup, TakesTheTimeWhereItCostsLeast) {
  ScanOptions options;
  parse_scan("4x1@wanda", options).value();
  const std::vector<ScanLayer> layers = {layer("robust", 4, 0.01, 2), layer("touchy", 4, 0.5, 2)};
  const Recipe recipe = recipe_for_speedup(layers, 10, 1.4, options).value();
  ASSERT_EQ(recipe.items.size(), 1U);  // 10 ms to 7.14 ms: "robust" at 75 % saves 3
  EXPECT_EQ(recipe.items[0].layers, "robust");
  EXPECT_EQ(recipe.items[0].spec, "4x1:0.75@wanda");
  EXPECT_EQ(recipe_for_speedup(layers, 10, 2, options).value().items.size(), 2U);
  const auto too_much = recipe_for_speedup(layers, 10, 4, options);
  EXPECT_EQ(too_much.status().code(), Code::kBadInput);
  EXPECT_TRUE(recipe_for_speedup(layers, 10, 1, options).value().items.empty());
}

TEST(Scan, SeesEveryLayerWithTheInputsOfTheOriginal) {
  const graph::Graph g = small_graph(3);
  const Calibration calibration = small_calibration(3, 64, 4);
  ThreadPool pool(1);
  ScanOptions options;
  parse_scan("4x1", options).value();
  options.skip = {"side"};
  const auto layers = scan_layers(g, calibration, calibration.held_out[0], pool, options).value();
  ASSERT_EQ(layers.size(), 2U);
  EXPECT_EQ(layers[0].name, "first");
  for (const ScanLayer& l : layers) {
    ASSERT_EQ(l.levels.size(), kScanSparsities.size());
    EXPECT_GT(l.dense_ms, 0);
    EXPECT_LT(l.levels[0].error, l.levels[1].error);
    EXPECT_LT(l.levels[1].error, l.levels[2].error);
  }
  options.method = "magnitude";
  EXPECT_FALSE(scan_layers(g, {}, calibration.held_out[0], pool, options)
                   .value()[0]
                   .levels[0]
                   .error.has_value());
  options.method = "sparsegpt";
  EXPECT_EQ(scan_layers(g, {}, calibration.held_out[0], pool, options).status().code(),
            Code::kUsage);
}

TEST(TimeLayer, InputsOfTheModelThatALayerReadsAreThoseOfTheSample) {
  graph::Graph g;
  const auto x = g.add_input("x", DType::kF32, std::vector<graph::DimInfo>{{1, ""}, {4, ""}, {8, ""}});
  const auto mask = g.add_input("mask", DType::kS64, std::vector<graph::DimInfo>{{1, ""}, {4, ""}});
  const auto hidden = add_op(g, "Relu", {x}, "relu");
  const auto narrow = add_op(g, "Cast", {mask}, "cast");
  g.node(g.value(narrow).producer).attrs.set("to", int64_t{6});
  const auto w = g.add_constant("w", tensor_of(random_matrix(8, 24, 1)));
  const auto b = g.add_constant("b", Tensor::zeros(DType::kF32, Shape{24}).value());
  const auto n = g.add_node("com.microsoft", "Attention", 1, {hidden, w, b, narrow}, {"y"});
  g.node(n).attrs.set("num_heads", int64_t{2});
  g.node(n).def = graph::find_op("com.microsoft", "Attention", 1);
  const auto y = g.node(n).outputs[0];
  g.set_outputs({y});
  Batch sample;
  sample.inputs = {Tensor::zeros(DType::kF32, Shape{1, 4, 8}).value(),
                   Tensor::zeros(DType::kS64, Shape{1, 4}).value()};
  ThreadPool pool(1);
  EXPECT_GT(time_layer(g, hidden, y, sample.inputs[0], sample, pool, {}).value(), 0);
  EXPECT_GT(time_layer(g, x, y, sample.inputs[0], sample, pool, {}).value(), 0);
}

TEST(VisitLayers, GivesWhatEachLayerReads) {
  const graph::Graph g = small_graph(3);
  const Calibration calibration = small_calibration(1, 16, 4);
  ThreadPool pool(1);
  std::vector<std::string> seen;
  visit_layers(g, calibration.held_out[0], pool, {},
               [&](const LinearLayer& l, const Tensor& input) {
                 seen.push_back(l.name + input.shape().to_string());
                 return Status();
               })
      .value();
  EXPECT_EQ(seen, (std::vector<std::string>{"first[16,24]", "second[16,40]", "side[16,24]"}));
}

}  // namespace
}  // namespace sprun::compress
