// What may follow a convolution becomes part of it, and the numbers stay the same.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "graph/ir/graph.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {

Result<int> pass_fuse_conv(Graph& graph, PassContext& ctx);

namespace {

constexpr int64_t kChannels = 4;

Tensor filled(const Shape& shape, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  Tensor tensor = Tensor::allocate(DType::kF32, shape).value();
  for (int64_t i = 0; i < tensor.num_elements(); ++i)
    tensor.mutable_view().as<float>()[i] = uniform(engine);
  return tensor;
}

// x [1, 3, 6, 7] -> Conv 3x3 -> ... one node after the other.
class Chain {
 public:
  Chain() {
    x_ = graph.add_input("x", DType::kF32, {});
    at_ = add("", "Conv",
              {x_, constant(filled({kChannels, 3, 3, 3}, 1)), constant(filled({kChannels}, 2))});
    graph.node(graph.value(at_).producer).attrs.set("pads", std::vector<int64_t>{1, 1, 1, 1});
  }

  ValueId constant(Tensor tensor) {
    return graph.add_constant("c" + std::to_string(count_++), std::move(tensor));
  }
  ValueId scalar(float v) {
    Tensor tensor = Tensor::allocate(DType::kF32, {1}).value();
    tensor.mutable_view().as<float>()[0] = v;
    return constant(std::move(tensor));
  }
  ValueId add(std::string domain, std::string op, std::vector<ValueId> inputs) {
    const NodeId n = graph.add_node(domain, op, domain.empty() ? 17 : 1, std::move(inputs),
                                    {"v" + std::to_string(count_++)});
    graph.node(n).name = "n" + std::to_string(n);
    graph.node(n).def = find_op(domain, op, domain.empty() ? 17 : 1);
    return graph.node(n).outputs[0];
  }
  // Appends op(current, other...), or op(other, current).
  Chain& then(const std::string& op, std::vector<ValueId> others = {}, bool first = true) {
    others.insert(first ? others.begin() : others.end(), at_);
    at_ = add("", op, std::move(others));
    return *this;
  }
  ValueId at() const { return at_; }
  ValueId x() const { return x_; }

  std::vector<float> run() {
    std::map<ValueId, Tensor> values = {{x_, filled({1, 3, 6, 7}, 5)}};
    ThreadPool pool(1);
    const std::vector<NodeId> order = graph.topological_order().value();
    for (NodeId n : order) {
      const Node& node = graph.node(n);
      std::vector<ConstTensorView> views;
      for (ValueId v : node.inputs) {
        views.push_back(v == kNoValue                  ? ConstTensorView{}
                        : graph.value(v).is_constant() ? graph.value(v).constant.view()
                                                       : values[v].view());
      }
      const auto outputs = evaluate(node, views, {.pool = &pool}).value();
      for (size_t i = 0; i < outputs.size(); ++i) values[node.outputs[i]] = outputs[i];
    }
    const Tensor& y = values[graph.outputs()[0]];
    return {y.as<float>(), y.as<float>() + y.num_elements()};
  }

  // Fuses, checks that the numbers stay and returns how many nodes are left.
  int fused_nodes() {
    graph.set_outputs({at_});
    const std::vector<float> before = run();
    PassContext ctx;
    EXPECT_TRUE(pass_fuse_conv(graph, ctx).ok());
    const std::vector<float> after = run();
    EXPECT_EQ(before.size(), after.size());
    for (size_t i = 0; i < before.size(); ++i)
      EXPECT_NEAR(before[i], after[i], 1e-5F + 1e-5F * std::abs(before[i]));
    EXPECT_EQ(pass_fuse_conv(graph, ctx).value(), 0) << "a second run changes nothing";
    return graph.num_live_nodes();
  }

  Graph graph;

 private:
  ValueId x_ = kNoValue, at_ = kNoValue;
  int count_ = 0;
};

TEST(FuseConv, TakesAffineActivationAndScalarsAround) {
  Chain c;
  c.then("Mul", {c.scalar(1.5F)}).then("Add", {c.scalar(0.25F)}).then("HardSwish");
  c.then("Mul", {c.scalar(-0.5F)}).then("Add", {c.scalar(0.125F)});
  EXPECT_EQ(c.fused_nodes(), 1);
}

TEST(FuseConv, FoldsConstantsPerChannelIntoTheWeights) {
  Chain c;
  c.then("Mul", {c.constant(filled({kChannels, 1, 1}, 7))})
      .then("Sub", {c.constant(filled({1, kChannels, 1, 1}, 8))});
  c.then("Div", {c.scalar(4.0F)}).then("Sub", {c.scalar(1.0F)}, false);
  EXPECT_EQ(c.fused_nodes(), 1);
  EXPECT_TRUE(c.graph.node(c.graph.value(c.at()).producer).is("Conv"));
}

TEST(FuseConv, KeepsConstantsAlongOtherAxes) {
  Chain c;
  c.then("Mul", {c.constant(filled({7}, 7))});
  EXPECT_EQ(c.fused_nodes(), 2);
  Chain rows;
  rows.then("Add", {rows.constant(filled({6, 1}, 7))});
  EXPECT_EQ(rows.fused_nodes(), 2);
}

TEST(FuseConv, TakesEveryActivationItKnows) {
  for (const char* op : {"Relu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "LeakyRelu"}) {
    Chain c;
    c.then(op);
    EXPECT_EQ(c.fused_nodes(), 1) << op;
  }
  Chain clip;
  clip.then("Clip", {clip.scalar(-0.25F), clip.scalar(0.5F)});
  EXPECT_EQ(clip.fused_nodes(), 1);
  Chain twice;
  twice.then("Relu").then("Tanh");
  EXPECT_EQ(twice.fused_nodes(), 2);
}

TEST(FuseConv, KeepsAResultThatOthersUse) {
  Chain c;
  const ValueId conv = c.at();
  c.then("Relu").then("Add", {conv});
  EXPECT_EQ(c.fused_nodes(), 3);
}

TEST(FuseConv, AddsATensorOfTheSameShapeBeforeTheActivation) {
  Chain c;
  const ValueId weight = c.constant(filled({kChannels, 3, 1, 1}, 9));
  const ValueId other = c.add("", "Conv", {c.x(), weight});
  c.then("Add", {other}).then("Relu");
  const Shape shape{1, kChannels, 6, 7};
  for (ValueId v = 0; v < c.graph.num_values(); ++v) {
    if (c.graph.value(v).is_constant() || v == c.x()) continue;
    c.graph.value(v).shape = shape;
    c.graph.value(v).dtype = DType::kF32;
  }
  EXPECT_EQ(c.fused_nodes(), 2);
}

}  // namespace
}  // namespace sprun::graph
