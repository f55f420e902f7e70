// Slicing: exact rotations of generated models, what is left of them, tied tables, what is refused.
#include <gtest/gtest.h>

#include <cmath>

#include <Eigen/QR>
#include <Eigen/SVD>

#include "graph/ir/pattern.h"
#include "graph/onnx/onnx_reader.h"
#include "graph/ops/op.h"
#include "tests/tools/compress/test_util.h"
#include "tools/compress/compress.h"
#include "tools/compress/graph_runner.h"
#include "tools/compress/residual_stream.h"
#include "tools/compress/stream_basis.h"
#include "tools/modelgen/modelgen.h"

namespace sprun::compress {
namespace {

constexpr int64_t kVocab = 97, kWidth = 64, kLayers = 2;

modelgen::Config small_config(modelgen::Family family, int opset = 14) {
  modelgen::Config config;
  config.family = family;
  config.layers = kLayers;
  config.hidden = kWidth;
  config.heads = 4;
  config.kv_heads = family == modelgen::Family::kLlama ? 2 : 4;
  config.ffn = 160;
  config.vocab = kVocab;
  config.max_seq = 24;
  config.image = 32;
  config.patch = 8;
  config.labels = family == modelgen::Family::kVit ? 5 : 0;
  config.opset = opset;
  return config;
}

graph::OnnxModel small_transformer(modelgen::Family family, int opset = 14) {
  graph::OnnxModel model;
  model.graph =
      std::make_unique<graph::Graph>(modelgen::generate(small_config(family, opset)).value());
  for (graph::NodeId n = 0; n < model.graph->num_nodes(); ++n) {
    graph::Node& node = model.graph->node(n);
    node.def = graph::find_op(node.domain, node.op_type, node.version);
  }
  return model;
}

Tensor text_input(const std::string& name, int64_t rows, int64_t length, std::mt19937_64& rng) {
  Tensor t = Tensor::allocate(DType::kS64, Shape{rows, length}).value();
  auto* data = t.mutable_view().as<int64_t>();
  for (int64_t i = 0; i < rows * length; ++i) {
    if (name.find("mask") != std::string::npos) data[i] = 1;
    else if (name.find("position") != std::string::npos) data[i] = i % length;
    else
      data[i] = static_cast<int64_t>(rng() % (name.find("type") != std::string::npos ? 2 : kVocab));
  }
  return t;
}

Batch batch_for(const graph::Graph& graph, int64_t rows, int64_t length, uint64_t seed) {
  std::mt19937_64 rng(seed);
  Batch batch;
  batch.samples = rows;
  for (graph::ValueId v : graph.inputs()) {
    if (graph.value(v).dtype == DType::kS64) {
      batch.inputs.push_back(text_input(graph.value(v).name, rows, length, rng));
      continue;
    }
    Tensor image = Tensor::allocate(DType::kF32, Shape{rows, 3, 32, 32}).value();
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < image.num_elements(); ++i)
      image.mutable_view().as<float>()[i] = normal(rng);
    batch.inputs.push_back(std::move(image));
  }
  return batch;
}

Calibration calibration_for(const graph::Graph& graph) {
  Calibration calibration;
  for (uint64_t seed : {1, 2}) calibration.batches.push_back(batch_for(graph, 8, 20, seed));
  calibration.held_out.push_back(batch_for(graph, 4, 20, 3));
  calibration.source = "test";
  return calibration;
}

Result<Report> slice(graph::OnnxModel& model, const std::string& spec) {
  Recipe recipe;
  SPRUN_TRY(read_recipe(R"({"steps": [{"slice": ")" + spec + R"("}]})", recipe));
  ThreadPool pool(2);
  return compress_model(model, recipe, calibration_for(*model.graph), pool, {});
}

std::vector<Tensor> run(const graph::Graph& graph, const Batch& batch) {
  ThreadPool pool(2);
  GraphRunner runner = GraphRunner::create(graph, pool, SparseMode::kOff).value();
  std::vector<ConstTensorView> views;
  for (const Tensor& t : batch.inputs) views.push_back(t.view());
  return runner.run(views).value();
}

// Largest difference of any output, in units of that output's largest element.
double difference(const graph::Graph& a, const graph::Graph& b) {
  const Batch batch = batch_for(a, 3, 17, 77);
  const std::vector<Tensor> x = run(a, batch), y = run(b, batch);
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const Matrix mx = matrix_of(x[i]), my = matrix_of(y[i]);
    worst = std::max(worst, (mx - my).cwiseAbs().maxCoeff() / mx.cwiseAbs().maxCoeff());
  }
  return worst;
}

using modelgen::Family;

TEST(Slice, NothingRemovedIsExact) {
  for (Family family : {Family::kLlama, Family::kGpt2, Family::kBert, Family::kVit}) {
    for (int opset : {11, 14, 17}) {
      graph::OnnxModel model = small_transformer(family, opset);
      const graph::Graph original = *model.graph;
      const Report report = slice(model, "0").value();
      EXPECT_LE(difference(original, *model.graph), 2e-5)
          << static_cast<int>(family) << " opset " << opset;
      EXPECT_GT(report.after().macs, report.before().macs);  // the shortcuts
    }
  }
}

TEST(Slice, SharedRotationOfPreNormIsExactAndNeedsOneShortcut) {
  for (Family family : {Family::kLlama, Family::kGpt2}) {
    graph::OnnxModel model = small_transformer(family);
    const graph::Graph original = *model.graph;
    const Report report = slice(model, "0,shared").value();
    EXPECT_LE(difference(original, *model.graph), 2e-5);
    EXPECT_EQ(report.after().parameters - report.before().parameters, kWidth * kWidth);
  }
}

TEST(Slice, SharedRotationOfPostNormSaysThatItIsNotExact) {
  graph::OnnxModel model = small_transformer(Family::kBert);
  const graph::Graph original = *model.graph;
  const Report report = slice(model, "0,shared").value();
  ASSERT_FALSE(report.warnings.empty());
  EXPECT_GT(report.outputs.at(0).cosine, 0.97);
}

// Every layer inside has 48 of 64 dimensions; the head and what stands before the last norm stay
// whole.
TEST(Slice, WidthsAndReport) {
  for (Family family : {Family::kLlama, Family::kGpt2, Family::kBert}) {
    graph::OnnxModel model = small_transformer(family);
    const graph::Graph original = *model.graph;
    const Report report = slice(model, "0.25").value();
    int shortcuts = 0, to_last = 0;
    for (const LayerReport& layer : report.layers) {
      if (layer.before.parameters() == 0) {
        ++shortcuts;
        to_last += layer.after.outputs == kWidth;
        EXPECT_EQ(layer.after.inputs, 48);
      } else if (layer.action.empty()) {
        EXPECT_EQ(layer.after.parameters(), layer.before.parameters());
      } else {
        EXPECT_TRUE(layer.after.inputs == 48 || layer.after.outputs == 48) << layer.name;
      }
    }
    EXPECT_EQ(shortcuts, 2 * kLayers);
    EXPECT_EQ(to_last, 1);
    EXPECT_LT(difference(original, *model.graph), 1.5);
    EXPECT_GT(report.outputs.at(0).cosine, 0.6);
  }
}

// The more dimensions stay, the closer the result.
TEST(Slice, ErrorFallsWithWhatStays) {
  double last = 1e9;
  for (const char* spec : {"0.5", "0.25", "0.125", "0"}) {
    graph::OnnxModel model = small_transformer(Family::kBert);
    const double error = slice(model, spec).value().outputs.at(0).relative_error;
    EXPECT_LT(error, last) << spec;
    last = error;
  }
}

TEST(Slice, TableThatTheHeadSharesStaysWhole) {
  graph::OnnxModel model = small_transformer(Family::kGpt2);
  graph::Graph& g = *model.graph;
  graph::ValueId table = graph::kNoValue;
  for (graph::NodeId n = 0; n < g.num_nodes(); ++n) {
    const Tensor* t = g.node(n).is("Gather") ? g.constant(g.node(n).input(0)) : nullptr;
    if (t != nullptr && t->shape() == Shape{kVocab, kWidth}) table = g.node(n).input(0);
  }
  ASSERT_NE(table, graph::kNoValue);
  const graph::NodeId head = g.value(g.outputs()[0]).producer;
  ASSERT_TRUE(g.node(head).is("MatMul"));
  const graph::ValueId turned = add_op(g, "Transpose", {table}, "turn");
  g.node(g.value(turned).producer).attrs.set("perm", std::vector<int64_t>{1, 0});
  g.set_input(head, 1, turned);
  const graph::Graph original = g;
  slice(model, "0").value();
  EXPECT_LE(difference(original, g), 2e-5);
  EXPECT_EQ(g.constant(table)->shape(), (Shape{kVocab, kWidth}));
}

TEST(Slice, PrincipalBasisIsThatOfTheLargestVariances) {
  Matrix x = random_matrix(400, 24, 5);
  const Matrix directions =
      Eigen::HouseholderQR<Eigen::MatrixXd>(random_matrix(24, 24, 6)).householderQ();
  for (int64_t j = 0; j < 24; ++j) x.col(j) *= std::pow(0.5, static_cast<double>(j));
  x *= directions.transpose();
  const StreamBasis basis = principal_basis(x.transpose() * x, false, 8).value();
  EXPECT_LE((basis.q.transpose() * basis.q - Matrix::Identity(8, 8)).cwiseAbs().maxCoeff(), 1e-12);
  // In terms of residuals: what is lost is as little as the singular values allow.
  const Vector singular = Eigen::BDCSVD<Eigen::MatrixXd>(x).singularValues();
  const double lost = (x - x * basis.q * basis.q.transpose()).squaredNorm();
  EXPECT_NEAR(lost / singular.tail(16).squaredNorm(), 1, 1e-9);
  EXPECT_NEAR(1 - basis.energy, lost / x.squaredNorm(), 1e-12);
}

// With fewer rows than dimensions many directions are free; that of the mean must still be the last
// one.
TEST(Slice, TheMeanIsDroppedFirst) {
  Matrix x = random_matrix(5, 16, 8);
  const Eigen::VectorXd mean = x.rowwise().mean();
  x.colwise() -= mean;
  const StreamBasis basis = principal_basis(x.transpose() * x, true, 15).value();
  EXPECT_LE((basis.q.transpose() * Vector::Ones(16)).cwiseAbs().maxCoeff(), 1e-12);
}

// What is left of x has the mean of x as its own, so that a LayerNorm drops just that.
TEST(Slice, TheBasisOfStreamsThatKeepTheirMean) {
  Matrix x = random_matrix(300, 16, 8), centred = x;
  const Eigen::VectorXd mean = x.rowwise().mean();
  centred.colwise() -= mean;
  const Matrix gram = centred.transpose() * centred;
  for (const int64_t kept : {1, 2, 9, 16}) {
    const StreamBasis basis = with_mean(principal_basis(gram, true, kept - 1).value());
    ASSERT_EQ(basis.q.cols(), kept);
    EXPECT_LE(
        (basis.q.transpose() * basis.q - Matrix::Identity(kept, kept)).cwiseAbs().maxCoeff(),
        1e-12);
    const Eigen::VectorXd mean_of_rest =
        (x * basis.q).rowwise().mean() * std::sqrt(static_cast<double>(kept) / 16);
    EXPECT_LE((mean_of_rest - mean).cwiseAbs().maxCoeff(), 1e-12) << kept;
    const Matrix back = x * basis.q * basis.q.transpose();
    EXPECT_LE((back.rowwise().mean() - mean).cwiseAbs().maxCoeff(), 1e-12) << kept;
  }
}

// A pooled output of the stream itself, as embedding models without a last norm have it; `only`:
// instead of what stands behind the last norm.
graph::OnnxModel pooled_transformer(Family family, int opset, bool only) {
  graph::OnnxModel model = small_transformer(family, opset);
  graph::Graph& g = *model.graph;
  const graph::ValueId pooled =
      add_op(g, "Tanh", {find_residual_stream(g).value().points.back().value}, "pooled");
  std::vector<graph::ValueId> outputs{pooled};
  if (!only) outputs.insert(outputs.begin(), g.outputs()[0]);
  g.set_outputs(outputs);
  for (graph::NodeId n = g.num_nodes() - 1; n >= 0; --n) graph::remove_if_unused(g, n);
  return model;
}

int count_ops(const graph::Graph& g, const std::string& op) {
  int count = 0;
  for (graph::NodeId n = 0; n < g.num_nodes(); ++n) count += !g.node(n).dead && g.node(n).is(op);
  return count;
}

TEST(Slice, StreamsThatAreReadWithoutANormAreExactToo) {
  for (Family family : {Family::kLlama, Family::kGpt2, Family::kVit}) {
    for (int opset : {11, 14, 17, 18}) {
      for (bool only : {false, true}) {
        for (const char* spec : {"0", "0,shared"}) {
          graph::OnnxModel model = pooled_transformer(family, opset, only);
          const graph::Graph original = *model.graph;
          slice(model, spec).value();
          EXPECT_LE(difference(original, *model.graph), 2e-5)
              << static_cast<int>(family) << " opset " << opset << " slice " << spec;
        }
      }
    }
  }
}

// The mean costs nothing but a dimension and the spelling of the norm; where no one reads it, norms
// stay RMSNorms.
TEST(Slice, OnlyStreamsThatAreReadWithoutANormKeepTheirMean) {
  for (bool raw : {false, true}) {
    graph::OnnxModel model =
        raw ? pooled_transformer(Family::kGpt2, 17, false) : small_transformer(Family::kGpt2, 17);
    const graph::Graph original = *model.graph;
    const int norms = count_ops(original, "LayerNormalization");
    ASSERT_EQ(norms, 2 * kLayers + 1);
    for (const StreamPoint& point : find_residual_stream(original).value().points)
      EXPECT_EQ(point.keeps_mean, raw);
    const Report report = slice(model, "0.25").value();
    EXPECT_EQ(count_ops(*model.graph, "LayerNormalization"), raw ? norms : 1);
    for (const LayerReport& layer : report.layers)
      EXPECT_TRUE(layer.action.empty() || layer.after.inputs == 48 || layer.after.outputs == 48);
    EXPECT_GT(report.outputs.at(0).cosine, 0.6);
  }
}

// The value that the second layer's first norm reads.
graph::ValueId middle_of(const graph::Graph& g) {
  const ResidualStream stream = find_residual_stream(g).value();
  return stream.points.at(2).value;
}

std::string refusal(graph::OnnxModel& model) {
  const auto report = slice(model, "0.25");
  EXPECT_FALSE(report.ok());
  if (report.ok()) return "";
  EXPECT_EQ(report.status().code(), Code::kBadModel);
  return report.status().message();
}

TEST(Slice, RefusesWhatElseReadsTheStream) {
  graph::OnnxModel model = small_transformer(Family::kLlama);
  graph::Graph& g = *model.graph;
  add_op(g, "Tanh", {middle_of(g)}, "spy");
  const std::string message = refusal(model);
  EXPECT_NE(message.find("Tanh 'spy' reads the residual stream at"), std::string::npos) << message;
}

TEST(Slice, RefusesStreamsThatAreOutputs) {
  graph::OnnxModel model = small_transformer(Family::kGpt2);
  graph::Graph& g = *model.graph;
  std::vector<graph::ValueId> outputs(g.outputs().begin(), g.outputs().end());
  outputs.push_back(middle_of(g));
  g.set_outputs(outputs);
  EXPECT_NE(refusal(model).find("is an output of the model"), std::string::npos);
}

TEST(Slice, RefusesWhatElseReadsANorm) {
  graph::OnnxModel model = small_transformer(Family::kBert);
  graph::Graph& g = *model.graph;
  add_op(g, "Relu", {find_residual_stream(g).value().norms.at(1).out}, "spy");
  const std::string message = refusal(model);
  EXPECT_NE(message.find("Relu 'spy' reads norm"), std::string::npos) << message;
}

TEST(Slice, RefusesModelsWithoutAStream) {
  graph::OnnxModel model;
  model.graph = std::make_unique<graph::Graph>(small_graph(1));
  EXPECT_NE(find_residual_stream(*model.graph).status().message().find("no residual stream"),
            std::string::npos);
}

TEST(Slice, WordsThatMakeNoSense) {
  for (const char* spec : {"1", "-0.1", "half", "0.25,fast", "0.2x", "nan"}) {
    graph::OnnxModel model = small_transformer(Family::kBert);
    const auto report = slice(model, spec);
    ASSERT_FALSE(report.ok()) << spec;
    EXPECT_EQ(report.status().code(), Code::kUsage) << spec;
  }
  graph::OnnxModel model = small_transformer(Family::kBert);
  Recipe recipe;
  read_recipe(R"({"steps": [{"slice": "0.25"}]})", recipe).value();
  ThreadPool pool(1);
  EXPECT_EQ(compress_model(model, recipe, {}, pool, {}).status().code(),
            Code::kUsage);  // no calibration data
}

}  // namespace
}  // namespace sprun::compress
