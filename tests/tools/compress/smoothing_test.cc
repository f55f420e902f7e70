// Smoothing of int8 inputs and the second product for what rounding leaves.
#include "tools/compress/smoothing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "graph/onnx/onnx_reader.h"
#include "tests/tools/compress/test_util.h"
#include "tools/compress/compress.h"
#include "tools/compress/graph_runner.h"
#include "tools/compress/int8_spec.h"
#include "tools/compress/quantize.h"

namespace sprun::compress {
namespace {

constexpr int64_t kWidth = 24;

Vector some_scales(int64_t n) {
  Vector s(n);
  for (int64_t i = 0; i < n; ++i) s[i] = std::pow(2.0, 0.5 * static_cast<double>(i % 7) - 1);
  return s;
}

// Inputs x[batch, 24] of which three channels are much larger than the others, small enough for the
// tanh of small_graph().
Matrix spiky_inputs(int64_t rows, uint64_t seed) {
  Matrix x = 3e-4 * random_matrix(rows, kWidth, seed);
  for (int64_t j : {3, 11, 17}) x.col(j) *= 40;
  return x;
}

Matrix run(const graph::Graph& graph, const Matrix& x) {
  ThreadPool pool(1);
  const graph::ValueId from[] = {graph.inputs()[0]}, to[] = {graph.outputs()[0]};
  GraphRunner runner =
      GraphRunner::create(extract_part(graph, from, to).value(), pool, SparseMode::kOff).value();
  const Tensor tensor = tensor_of(x);
  const ConstTensorView view = tensor.view();
  return matrix_of(runner.run({&view, 1}).value().at(0));
}

double difference(const Matrix& a, const Matrix& b) {
  return (a - b).cwiseAbs().maxCoeff() / a.cwiseAbs().maxCoeff();
}

int count(const graph::Graph& graph, std::string_view op) {
  int n = 0;
  for (graph::NodeId i = 0; i < graph.num_nodes(); ++i)
    n += !graph.node(i).dead && graph.node(i).is(op);
  return n;
}

// x -> what `make` builds -> "value" -> Tanh, with the division in between.
struct Divided {
  graph::Graph graph;
  graph::ValueId value, divided;
  bool folded = false;
};

using Make = std::function<graph::ValueId(graph::Graph&, graph::ValueId)>;

Divided divide(const Make& make, bool read_twice = false) {
  Divided d;
  graph::Graph& g = d.graph;
  const auto x =
      g.add_input("x", DType::kF32, std::vector<graph::DimInfo>{{-1, "batch"}, {kWidth, ""}});
  d.value = make(g, x);
  const auto tanh = add_op(g, "Tanh", {d.value}, "tanh");
  d.divided = divide_channels(g, d.value, some_scales(kWidth), g.value(tanh).producer).value();
  g.set_input(g.value(tanh).producer, 0, d.divided);
  g.set_outputs({read_twice ? add_op(g, "Add", {tanh, d.value}, "sum") : tanh});
  return d;
}

graph::ValueId vector_constant(graph::Graph& g, const std::string& name, uint64_t seed) {
  Tensor t = Tensor::allocate(DType::kF32, Shape{kWidth}).value();
  const Matrix values = random_matrix(1, kWidth, seed);
  for (int64_t i = 0; i < kWidth; ++i)
    static_cast<float*>(t.mutable_view().data)[i] = static_cast<float>(values(0, i));
  return g.add_constant(name, std::move(t));
}

graph::ValueId layer(graph::Graph& g, graph::ValueId x, const std::string& name, uint64_t seed) {
  const auto w = g.add_constant(name + "_w", tensor_of(random_matrix(kWidth, kWidth, seed)));
  return add_op(g, "MatMul", {x, w}, name);
}

graph::ValueId shifted_norm(graph::Graph& g, graph::ValueId x) {
  const auto scaled = add_op(g, "Mul", {x, vector_constant(g, "gamma", 1)}, "scaled");
  return add_op(g, "Add", {vector_constant(g, "beta", 2), scaled}, "shifted");
}

graph::ValueId gated(graph::Graph& g, graph::ValueId x) {
  const auto gate = add_op(g, "Sigmoid", {layer(g, x, "gate", 3)}, "sigmoid");
  return add_op(g, "Mul", {gate, layer(g, x, "up", 4)}, "product");
}

graph::ValueId relu_network(graph::Graph& g, graph::ValueId x) {
  const auto up = add_op(g, "Add", {layer(g, x, "up", 5), vector_constant(g, "bias", 6)}, "biased");
  return add_op(g, "Relu", {up}, "relu");
}

graph::ValueId layer_norm(graph::Graph& g, graph::ValueId x) {
  const graph::NodeId n =
      g.add_node("", "LayerNormalization", 17,
                 {x, vector_constant(g, "gamma", 7), vector_constant(g, "beta", 8)}, {"norm_out"});
  g.node(n).name = "norm";
  g.node(n).def = graph::find_op("", "LayerNormalization", 17);
  return g.node(n).outputs[0];
}

graph::ValueId tanh_network(graph::Graph& g, graph::ValueId x) {
  return add_op(g, "Tanh", {layer(g, x, "up", 9)}, "bent");
}

graph::ValueId plain_input(graph::Graph&, graph::ValueId x) { return x; }

TEST(FoldChannelScale, OutputsStayWhereTheWayBackKeepsChannelsApart) {
  const Matrix x = random_matrix(9, kWidth, 21);
  for (const Make& make : {Make(shifted_norm), Make(gated), Make(relu_network), Make(layer_norm)}) {
    Divided d = divide(make);
    const Matrix before = run(d.graph, x);
    const int products = count(d.graph, "Mul");
    ASSERT_TRUE(fold_channel_scale(d.graph, d.divided).value());
    EXPECT_EQ(count(d.graph, "Mul"), products - 1);
    EXPECT_LE(difference(before, run(d.graph, x)), 1e-5);
  }
}

TEST(FoldChannelScale, NothingChangesWhereItCannotBeFolded) {
  const Matrix x = random_matrix(9, kWidth, 22);
  const auto stays = [&](Divided d) {
    const Matrix before = run(d.graph, x);
    const int products = count(d.graph, "Mul");
    EXPECT_FALSE(fold_channel_scale(d.graph, d.divided).value());
    EXPECT_EQ(count(d.graph, "Mul"), products);
    EXPECT_EQ(before, run(d.graph, x));
  };
  stays(divide(tanh_network));
  stays(divide(plain_input));
  for (const Make& make : {Make(shifted_norm), Make(gated), Make(relu_network), Make(layer_norm)})
    stays(divide(make, true));  // something else reads the value as it is
}

TEST(FoldChannelScale, ReadersOfTheShapeDoNotMind) {
  Divided d = divide(shifted_norm);
  const auto shape = add_op(d.graph, "Shape", {d.value}, "shape");
  d.graph.set_outputs({d.graph.outputs()[0], shape});
  EXPECT_TRUE(fold_channel_scale(d.graph, d.divided).value());
}

TEST(FoldChannelScale, AConstantThatOthersReadStays) {
  const auto make = [](graph::Graph& g, graph::ValueId x) {
    const auto gamma = vector_constant(g, "gamma", 1);
    const auto once = add_op(g, "Sigmoid", {add_op(g, "Mul", {x, gamma}, "once")}, "sigmoid");
    return add_op(g, "Mul", {once, gamma}, "twice");
  };
  Divided d = divide(make);
  const Matrix x = random_matrix(5, kWidth, 23), before = run(d.graph, x);
  ASSERT_TRUE(fold_channel_scale(d.graph, d.divided).value());
  EXPECT_LE(difference(before, run(d.graph, x)), 1e-5);
}

InputSample sample_of(const Matrix& x) {
  InputSample sample(x.cols(), x.rows());
  sample.add(tensor_of(x), 0, {});
  return sample;
}

TEST(Smoothing, LargeChannelsAreSmoothedAndEvenOnesAreNot) {
  ThreadPool pool(2);
  const Matrix w = random_matrix(16, kWidth, 1);
  for (const Int8Mode mode : {Int8Mode::kDynamic, Int8Mode::kStatic}) {
    const Smoothing spiky = choose_smoothing(sample_of(spiky_inputs(16, 2)), w, mode, -1, pool);
    EXPECT_GT(spiky.power, 0);
    EXPECT_LT(spiky.error_after, 0.7 * spiky.error_before);
    EXPECT_NEAR(spiky.scale.array().log().mean(), 0, 1e-9);
    const auto sign = [](double v) { return v < 0 ? -1.0 : 1.0; };
    const Matrix even = random_matrix(16, kWidth, 5).unaryExpr(sign);
    const Smoothing none = choose_smoothing(sample_of(even), w.unaryExpr(sign), mode, -1, pool);
    EXPECT_LT(none.power, 0);
    EXPECT_EQ(none.scale, Vector::Ones(kWidth));
    EXPECT_EQ(none.error_before, none.error_after);
  }
}

// The errors by loops over the formulas.
TEST(Smoothing, ErrorsAreThoseOfTheFormula) {
  ThreadPool pool(1);
  const Matrix x = spiky_inputs(7, 3), w = random_matrix(5, kWidth, 4);
  const Vector s = some_scales(kWidth);
  double low = 0, high = 0, sum = 0;
  for (int64_t i = 0; i < x.rows(); ++i) {
    for (int64_t j = 0; j < kWidth; ++j) {
      low = std::min(low, x(i, j) / s[j]);
      high = std::max(high, x(i, j) / s[j]);
    }
  }
  const double step = (high - low) / 255, zero = std::nearbyint(-low / step);
  for (int64_t i = 0; i < x.rows(); ++i) {
    double error = 0, size = 0;
    for (int64_t n = 0; n < w.rows(); ++n) {
      double y = 0, got = 0;
      for (int64_t j = 0; j < kWidth; ++j) {
        const double code =
            std::clamp(std::nearbyint(x(i, j) / s[j] / step) + zero, 0.0, 255.0) - zero;
        y += x(i, j) * w(n, j);
        got += code * step * w(n, j) * s[j];
      }
      error += (y - got) * (y - got);
      size += y * y;
    }
    sum += error / size;
  }
  const double want = std::sqrt(sum / static_cast<double>(x.rows()));
  EXPECT_NEAR(rounding_error(sample_of(x), w, w * s.asDiagonal(), s, Int8Mode::kStatic, pool), want,
              0.01 * want);
}

TEST(InputSample, EachSampleHasItsRangeAndMaskedRowsAreOnlyInThat) {
  InputSample sample(2, 2);
  Matrix values(6, 2);
  values << 1, -1, 2, 5, 99, 99, -3, 4, 0, 0, 99, 99;
  Tensor x = Tensor::allocate(DType::kF32, Shape{2, 3, 2}).value();
  for (int64_t i = 0; i < 12; ++i)
    static_cast<float*>(x.mutable_view().data)[i] = static_cast<float>(values.data()[i]);
  const std::vector<int64_t> rows = {0, 1, 3, 4};
  sample.add(x, 2, rows);
  ASSERT_EQ(sample.parts().size(), 2U);
  EXPECT_EQ(sample.parts()[0].ranges.max, (Vector(2) << 99, 99).finished());  // padding too
  EXPECT_EQ(sample.parts()[0].ranges.min, (Vector(2) << 0, -1).finished());
  EXPECT_EQ(sample.parts()[1].ranges.min, (Vector(2) << -3, 0).finished());
  EXPECT_EQ(sample.parts()[1].rows.rows(), 2);
  EXPECT_EQ(sample.ranges().max_abs(), (Vector(2) << 3, 5).finished());
  EXPECT_EQ(sample.ranges_with_padding().max, (Vector(2) << 99, 99).finished());
}

Calibration spiky_calibration() {
  Calibration calibration;
  for (uint64_t b = 0; b < 3; ++b)
    calibration.batches.push_back({{tensor_of(spiky_inputs(40, 30 + b))}, 40});
  calibration.held_out = calibration.batches;  // no clipping: static ranges hold for these
  return calibration;
}

Result<Report> quantize(graph::OnnxModel& model, const std::string& spec, bool with_data = true) {
  model.graph = std::make_unique<graph::Graph>(small_graph(1));
  model.opsets[""] = 13;
  Recipe recipe;
  SPRUN_TRY(read_recipe(R"({"steps": [{"quantize": ")" + spec + R"("}]})", recipe));
  ThreadPool pool(2);
  return compress_model(model, recipe, with_data ? spiky_calibration() : Calibration(), pool, {});
}

double output_error(const std::string& spec) {
  graph::OnnxModel model;
  return quantize(model, spec).value().outputs.at(0).relative_error;
}

TEST(WeightsStep, SmoothingAndResidualLowerTheErrorOfInt8) {
  for (const std::string mode : {"dynamic", "static"}) {
    const double plain = output_error("int8:" + mode);
    EXPECT_LT(output_error("int8:smooth," + mode), 0.8 * plain) << mode;
    EXPECT_LT(output_error("int8:residual," + mode), 0.8 * plain) << mode;
    EXPECT_LT(output_error("int8:residual0.001," + mode), 0.8 * plain) << mode;
    EXPECT_EQ(output_error("int8:residual1," + mode), plain) << mode;
  }
}

TEST(WeightsStep, TheReportSaysWhatWasChosen) {
  graph::OnnxModel model;
  Report report = quantize(model, "int8:smooth0.5,residual0.0001").value();
  EXPECT_EQ(report.find("first")->action, "int8 smooth0.5 residual");
  EXPECT_NE(report.find("first")->note.find("by a Mul"), std::string::npos);
  EXPECT_NE(report.find("second")->note.find("folded"), std::string::npos);  // through the ReLU
  EXPECT_NE(report.find("side")->note.find("rounding error"), std::string::npos);
  EXPECT_EQ(count(*model.graph, "MatMulInteger"), 6);
  EXPECT_EQ(count(*model.graph, "DynamicQuantizeLinear"), 4);  // "first" and "side" share theirs
}

TEST(WeightsStep, PruningAndSmoothingGoTogether) {
  graph::OnnxModel model;
  model.graph = std::make_unique<graph::Graph>(small_graph(1));
  model.opsets[""] = 13;
  Recipe recipe;
  read_recipe(R"({"steps": [{"prune": "4x1:0.5"}, {"quantize": "int8:smooth"}]})", recipe).value();
  ThreadPool pool(1);
  const Report report = compress_model(model, recipe, spiky_calibration(), pool, {}).value();
  for (const LayerReport& entry : report.layers)
    EXPECT_GE(entry.after.zeros, entry.after.parameters() / 2) << entry.name;
  EXPECT_GT(report.outputs.at(0).cosine, 0.5);
}

TEST(Int8Spec, WordsAndMistakes) {
  EXPECT_EQ(parse_int8_spec("int8").value().text(), "int8");
  EXPECT_EQ(parse_int8_spec("int8:dynamic").value(), Int8Spec());
  EXPECT_EQ(parse_int8_spec("int8:static,smooth0.75,residual0.02").value().text(),
            "int8 static smooth0.75 residual0.02");
  EXPECT_TRUE(parse_int8_spec("int8:smooth").value().needs_data());
  EXPECT_FALSE(parse_int8_spec("int8:residual").value().needs_data());
  for (const char* text :
       {"int8:", "int8:smooth1.5", "int8:smooth-1", "int8:smoothnan", "int8:smooth0.5x",
        "int8:residual,", "int8:residual2", "int8:smoth", "int4", "int8,smooth"}) {
    const auto result = parse_int8_spec(text);
    ASSERT_FALSE(result.ok()) << text;
    EXPECT_EQ(result.status().code(), Code::kUsage);
    EXPECT_NE(result.status().message().find(text), std::string::npos);
  }
  for (const char* spec : {"int8:smooth", "int8:residual0.02"}) {
    graph::OnnxModel model;
    const auto result = quantize(model, spec, false);
    ASSERT_FALSE(result.ok());
    EXPECT_NE(result.status().message().find("--calibration"), std::string::npos);
  }
}

}  // namespace
}  // namespace sprun::compress
