// Feed-forward layers as exporters write them, node by node, run before and after the passes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "graph/ir/graph.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"
#include "runtime/base/half.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {

enum class WeightForm { kMatMul, kTransposed, kGemm, kHalf, kDynamicInt8, kDequantized, kNBits };

class FfnGraph {
 public:
  using Attrs = std::vector<std::pair<std::string, Attr>>;

  explicit FfnGraph(int64_t rows = 3, int64_t width = 24, WeightForm form = WeightForm::kMatMul)
      : form_(form), shape_{1, rows, width} {
    x = graph.add_input("x", DType::kF32, {});
    if (form == WeightForm::kHalf) {
      x_half_ = add("Cast", {x}, {{"to", int64_t{10}}});
    }
  }

  // x in the type that the layers take.
  ValueId input() const { return x_half_ == kNoValue ? x : x_half_; }
  bool half() const { return form_ == WeightForm::kHalf; }

  ValueId add(const std::string& op, std::vector<ValueId> inputs, const Attrs& attrs = {}, const std::string& domain = "",
              int outputs = 1) {
    const int version = domain.empty() ? 20 : 1;
    std::vector<std::string> names;
    for (int i = 0; i < outputs; ++i) names.push_back("v" + std::to_string(count_++));
    const NodeId n = graph.add_node(domain, op, version, std::move(inputs), names);
    graph.node(n).name = op + std::to_string(n);
    graph.node(n).def = find_op(domain, op, version);
    EXPECT_NE(graph.node(n).def, nullptr) << op;
    for (const auto& [name, value] : attrs) graph.node(n).attrs.set(name, value);
    return graph.node(n).outputs[0];
  }
  ValueId output(ValueId first, size_t i) const { return graph.node(graph.value(first).producer).outputs[i]; }

  ValueId constant(Tensor tensor) { return graph.add_constant("c" + std::to_string(count_++), std::move(tensor)); }
  ValueId scalar(float value, const Shape& shape = {}) { return constant(floats(shape, [value] { return value; })); }
  ValueId ints(const std::vector<int64_t>& values) {
    Tensor tensor = Tensor::allocate(DType::kS64, {static_cast<int64_t>(values.size())}).value();
    std::copy(values.begin(), values.end(), tensor.mutable_view().as<int64_t>());
    return constant(std::move(tensor));
  }
  ValueId random_row(int64_t n, float low, float high) {
    std::uniform_real_distribution<float> uniform(low, high);
    return constant(floats({n}, [&] { return uniform(engine_); }));
  }

  // One code as a zero point.
  ValueId code(int value, DType dtype) {
    Tensor tensor = Tensor::allocate(dtype, {}).value();
    *tensor.mutable_view().as<uint8_t>() = static_cast<uint8_t>(value);
    return constant(std::move(tensor));
  }

  // x [.., k] -> [.., n], with a bias unless it is 0.
  ValueId linear(ValueId v, int64_t k, int64_t n, float bias = 0.1F) {
    std::normal_distribution<float> normal(0.0F, 1.0F / std::sqrt(static_cast<float>(k)));
    const auto weights = [&](const Shape& shape) {
      return constant(floats(shape, [&] { return normal(engine_); }));
    };
    const ValueId row = bias == 0 ? kNoValue : random_row_of_type(n, -bias, bias);
    ValueId y = kNoValue;
    switch (form_) {
      case WeightForm::kMatMul:
      case WeightForm::kHalf:
        y = add("MatMul", {v, weights({k, n})});
        break;
      case WeightForm::kTransposed:
        y = add("MatMul", {v, add("Transpose", {weights({n, k})}, {{"perm", std::vector<int64_t>{1, 0}}})});
        break;
      case WeightForm::kGemm:  // on rows
        return add("Gemm", row == kNoValue ? std::vector{v, weights({n, k})} : std::vector{v, weights({n, k}), row},
                   {{"transB", int64_t{1}}});
      case WeightForm::kDynamicInt8:
        y = dynamic_int8(v, k, n);
        break;
      case WeightForm::kDequantized:
        y = add("MatMul", {v, add("DequantizeLinear", {codes({k, n}), random_row(n, 0.001F, 0.003F), zeros(n)}, {{"axis", int64_t{1}}})});
        break;
      case WeightForm::kNBits:
        return nbits(v, k, n, row);
    }
    return row == kNoValue ? y : add("Add", {y, row});
  }

  ValueId relu(ValueId v) { return add("Relu", {v}); }
  ValueId gelu_tanh(ValueId v) { return add("Gelu", {v}, {{"approximate", std::string("tanh")}}); }

  // The result is graph output y, in float32.
  void finish(ValueId y) { graph.set_outputs({half() ? add("Cast", {y}, {{"to", int64_t{1}}}) : y}); }

  Tensor run(SparseMode sparse = SparseMode::kAuto) {
    std::normal_distribution<float> normal(0.0F, 1.0F);
    std::mt19937 engine(77);
    Tensor in = Tensor::allocate(DType::kF32, shape()).value();
    std::generate_n(in.mutable_view().as<float>(), in.num_elements(), [&] { return normal(engine); });
    std::map<ValueId, Tensor> values = {{x, in}};
    ThreadPool pool(2);
    const std::vector<NodeId> order = graph.topological_order().value();
    for (NodeId n : order) {
      const Node& node = graph.node(n);
      std::vector<ConstTensorView> views;
      std::vector<Tensor> constants;
      for (ValueId v : node.inputs) {
        constants.push_back(v != kNoValue && graph.constant(v) ? *graph.constant(v) : Tensor());
        views.push_back(v == kNoValue ? ConstTensorView{} : graph.constant(v) ? constants.back().view() : values[v].view());
      }
      auto results = evaluate(node, views, {.pool = &pool, .constants = constants, .sparse = sparse});
      EXPECT_TRUE(results.ok()) << node.op_type << ": " << results.status().message();
      if (!results.ok()) return {};
      for (size_t i = 0; i < node.outputs.size(); ++i) values[node.outputs[i]] = (*results)[i];
    }
    return values[graph.outputs()[0]];
  }

  // Runs all passes as a model load and a plan do, compares the results and returns the sparse layer left, if any.
  // Notes of both stages are kept.
  const Node* fuse(float tolerance = 1e-5F, const std::string& op = "SparseFfn") {
    const Tensor before = run();
    passes();
    for (SparseMode sparse : {SparseMode::kOff, SparseMode::kForce}) expect_close(before, run(sparse), tolerance);
    const Node* found = nullptr;
    for (NodeId n = 0; n < graph.num_nodes(); ++n) {
      if (!graph.node(n).dead && graph.node(n).is("sprun", op)) found = &graph.node(n);
    }
    return found;
  }
  void passes(const std::vector<std::string>& disabled = {}) {
    ThreadPool pool(1);
    std::vector<PassRecord> records;
    for (PassStage stage : {PassStage::kLoad, PassStage::kPlan}) {
      if (stage == PassStage::kPlan) graph.value(x).shape = shape();
      PassContext ctx;
      ctx.stage = stage;
      ctx.pool = &pool;
      const Status status = run_passes(graph, ctx, disabled, records);
      EXPECT_TRUE(status.ok()) << status.message();
      notes.insert(notes.end(), ctx.notes.begin(), ctx.notes.end());
    }
  }
  bool noted(const std::string& text) const {
    return std::any_of(notes.begin(), notes.end(), [&](auto& note) { return note.find(text) != std::string::npos; });
  }
  int live_nodes() const { return graph.num_live_nodes(); }

  Graph graph;
  ValueId x = kNoValue;
  std::vector<std::string> notes;

 private:
  Shape shape() const { return form_ == WeightForm::kGemm ? Shape{shape_[1], shape_[2]} : shape_; }

  static void expect_close(const Tensor& a, const Tensor& b, float tolerance) {
    ASSERT_EQ(a.shape(), b.shape());
    float largest = 0;
    for (int64_t i = 0; i < a.num_elements(); ++i) largest = std::max(largest, std::abs(a.as<float>()[i]));
    EXPECT_GT(largest, 0.0F) << "a test of zeros";
    for (int64_t i = 0; i < a.num_elements(); ++i) {
      ASSERT_NEAR(a.as<float>()[i], b.as<float>()[i], tolerance * largest) << i;
    }
  }

  template <class Fn>
  Tensor floats(const Shape& shape, const Fn& fn) {
    Tensor tensor = Tensor::allocate(half() ? DType::kF16 : DType::kF32, shape).value();
    for (int64_t i = 0; i < tensor.num_elements(); ++i) {
      const float value = fn();
      if (half()) tensor.mutable_view().as<Float16>()[i] = to_float16(value);
      else tensor.mutable_view().as<float>()[i] = value;
    }
    return tensor;
  }
  ValueId random_row_of_type(int64_t n, float low, float high) { return random_row(n, low, high); }

  ValueId codes(const Shape& shape) {
    std::uniform_int_distribution<int> uniform(-127, 127);
    Tensor tensor = Tensor::allocate(DType::kS8, shape).value();
    for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.mutable_view().as<int8_t>()[i] = static_cast<int8_t>(uniform(engine_));
    return constant(std::move(tensor));
  }
  ValueId zeros(int64_t n) { return constant(Tensor::zeros(DType::kS8, {n}).value()); }

  ValueId dynamic_int8(ValueId v, int64_t k, int64_t n) {
    const ValueId q = add("DynamicQuantizeLinear", {v}, {}, "", 3);
    const ValueId product = add("MatMulInteger", {q, codes({k, n}), output(q, 2), zeros(n)});
    const ValueId scales = add("Mul", {output(q, 1), random_row(n, 0.001F, 0.003F)});
    return add("Mul", {add("Cast", {product}, {{"to", int64_t{1}}}), scales});
  }

  ValueId nbits(ValueId v, int64_t k, int64_t n, ValueId bias) {
    constexpr int64_t kBlock = 16;
    const int64_t blocks = (k + kBlock - 1) / kBlock;
    std::uniform_int_distribution<int> byte(0, 255);
    Tensor packed = Tensor::allocate(DType::kU8, {n, blocks, kBlock / 2}).value();
    for (int64_t i = 0; i < packed.num_elements(); ++i) packed.mutable_view().as<uint8_t>()[i] = static_cast<uint8_t>(byte(engine_));
    std::vector<ValueId> inputs = {v, constant(std::move(packed)), random_row(n * blocks, 0.01F, 0.05F)};
    if (bias != kNoValue) inputs.insert(inputs.end(), {kNoValue, kNoValue, bias});
    return add("MatMulNBits", inputs, {{"K", k}, {"N", n}, {"bits", int64_t{4}}, {"block_size", kBlock}}, "com.microsoft");
  }

  WeightForm form_;
  Shape shape_;
  ValueId x_half_ = kNoValue;
  std::mt19937 engine_{5};
  int count_ = 0;
};

}  // namespace sprun::graph
