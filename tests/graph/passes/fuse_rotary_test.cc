// Rotary embedding spelled out becomes one node, and what only looks like it stays.
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

Result<int> pass_fuse_rotary(Graph& graph, PassContext& ctx);
Result<int> pass_reshape_transposed(Graph& graph, PassContext& ctx);

namespace {

Tensor filled(const Shape& shape, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-2.0F, 2.0F);
  Tensor tensor = Tensor::allocate(DType::kF32, shape).value();
  for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.mutable_view().as<float>()[i] = uniform(engine);
  return tensor;
}

Tensor ints(const std::vector<int64_t>& values) {
  Tensor tensor = Tensor::allocate(DType::kS64, Shape{static_cast<int64_t>(values.size())}).value();
  std::copy(values.begin(), values.end(), tensor.mutable_view().as<int64_t>());
  return tensor;
}

// A graph whose values have types and shapes, as in a plan: they are those of an evaluation.
class Net {
 public:
  ValueId input(const Shape& shape) {
    const ValueId v = graph.add_input("x" + std::to_string(graph.num_nodes()), DType::kF32, {});
    set(v, filled(shape, 1 + static_cast<uint32_t>(values_.size())));
    return v;
  }
  ValueId constant(Tensor tensor) { return graph.add_constant("c" + std::to_string(count_++), std::move(tensor)); }
  std::vector<ValueId> op_n(const std::string& op, std::vector<ValueId> inputs, int outputs, const char* attr = nullptr,
                            const Attr& value = int64_t{0}) {
    std::vector<std::string> names;
    for (int i = 0; i < outputs; ++i) names.push_back("v" + std::to_string(count_++));
    const NodeId n = graph.add_node("", op, 17, std::move(inputs), names);
    graph.node(n).def = find_op("", op, 17);
    if (attr != nullptr) graph.node(n).attrs.set(attr, value);
    run(n);
    return graph.node(n).outputs;
  }
  ValueId op(const std::string& name, std::vector<ValueId> inputs, const char* attr = nullptr,
             const Attr& value = int64_t{0}) {
    return op_n(name, std::move(inputs), 1, attr, value)[0];
  }
  ValueId slice(ValueId x, int64_t begin, int64_t end, int64_t axis) {
    return op("Slice", {x, constant(ints({begin})), constant(ints({end})), constant(ints({axis}))});
  }
  // The result of the whole graph, evaluated anew.
  Tensor result() {
    const std::vector<NodeId> order = graph.topological_order().value();
    for (NodeId n : order) run(n);
    return values_.at(graph.outputs()[0]);
  }
  std::vector<std::string> ops() {
    std::vector<std::string> types;
    const std::vector<NodeId> order = graph.topological_order().value();
    for (NodeId n : order) types.push_back(graph.node(n).op_type);
    return types;
  }

  Graph graph;

 private:
  void set(ValueId v, Tensor tensor) {
    graph.value(v).dtype = tensor.dtype();
    graph.value(v).shape = tensor.shape();
    values_[v] = std::move(tensor);
  }
  void run(NodeId n) {
    std::vector<ConstTensorView> views;
    for (ValueId v : graph.node(n).inputs) {
      views.push_back(graph.constant(v) ? graph.constant(v)->view() : values_.at(v).view());
    }
    ThreadPool pool(2);
    std::vector<Tensor> outputs = evaluate(graph.node(n), views, {.pool = &pool}).value();
    for (size_t i = 0; i < outputs.size(); ++i) set(graph.node(n).outputs[i], std::move(outputs[i]));
  }

  std::map<ValueId, Tensor> values_;
  int count_ = 0;
};

struct Form {
  int64_t size = 8;
  bool split = false, swapped = false;
  int64_t middle = 0;  // where the halves meet; 0: in the middle
  bool negate_first = false;
  Shape table = {2, 1, 5, 8};
  Shape x = {2, 3, 5, 8};
};

void build(Net& net, const Form& form) {
  const ValueId x = net.input(form.x), cos = net.input(form.table), sin = net.input(form.table);
  const int64_t middle = form.middle != 0 ? form.middle : form.size / 2;
  std::vector<ValueId> halves = {kNoValue, kNoValue};
  if (form.split) {
    halves = net.op_n("Split", {x, net.constant(ints({middle, form.size - middle}))}, 2, "axis", int64_t{-1});
  } else {
    halves = {net.slice(x, 0, middle, 3), net.slice(x, middle, INT64_MAX, -1)};
  }
  const ValueId straight = form.swapped ? net.op("Mul", {cos, x}) : net.op("Mul", {x, cos});
  ValueId turned = kNoValue;
  if (form.negate_first) {
    turned = net.op("Concat", {halves[1], net.op("Neg", {halves[0]})}, "axis", int64_t{-1});
  } else {
    turned = net.op("Concat", {net.op("Neg", {halves[1]}), halves[0]}, "axis", form.swapped ? int64_t{3} : int64_t{-1});
  }
  turned = form.swapped ? net.op("Mul", {sin, turned}) : net.op("Mul", {turned, sin});
  net.graph.set_outputs({form.swapped ? net.op("Add", {turned, straight}) : net.op("Add", {straight, turned})});
}

void expect_fused(const Form& form) {
  Net net;
  build(net, form);
  const Tensor before = net.result();
  PassContext ctx;
  EXPECT_EQ(pass_fuse_rotary(net.graph, ctx).value(), 1);
  EXPECT_EQ(net.ops(), std::vector<std::string>{"RotateHalf"});
  const Tensor after = net.result();
  ASSERT_EQ(before.shape(), after.shape());
  for (int64_t i = 0; i < before.num_elements(); ++i) {
    EXPECT_NEAR(before.as<float>()[i], after.as<float>()[i], 1e-6) << i;
  }
}

TEST(FuseRotary, EverySpelling) {
  for (bool split : {false, true}) {
    for (bool swapped : {false, true}) expect_fused({.split = split, .swapped = swapped});
  }
}

TEST(FuseRotary, EveryTableThatBroadcasts) {
  for (const Shape& table : {Shape{2, 3, 5, 8}, Shape{1, 1, 5, 8}, Shape{5, 8}, Shape{8}, Shape{1, 1, 1, 8}}) {
    expect_fused({.table = table});
  }
  expect_fused({.size = 64, .table = {1, 1, 300, 64}, .x = {1, 7, 300, 64}});  // more than one task
  expect_fused({.size = 2, .table = {1, 2}, .x = {1, 1, 1, 2}});
}

TEST(FuseRotary, NearMissesStay) {
  const auto stays = [](const Form& form) {
    Net net;
    build(net, form);
    PassContext ctx;
    EXPECT_EQ(pass_fuse_rotary(net.graph, ctx).value(), 0);
  };
  stays({.negate_first = true});
  stays({.middle = 3, .x = {1, 1, 1, 8}});                      // Concat of 5 and 3: no rotation by halves
  stays({.split = true, .middle = 2});
  stays({.table = {2, 4, 1, 5, 8}, .x = {1, 1, 5, 8}});         // the tables grow x
  stays({.table = {2, 3, 5, 8}, .x = {1, 3, 5, 8}});
  stays({.table = {5, 1}});
}

TEST(ReshapeTransposed, OnlyWhereNothingMoves) {
  const auto ops_after = [](const Shape& shape, const std::vector<int64_t>& perm) {
    Net net;
    const ValueId x = net.input(shape);
    net.graph.set_outputs({net.op("Neg", {net.op("Transpose", {x}, "perm", perm)})});
    const Tensor before = net.result();
    PassContext ctx;
    EXPECT_TRUE(pass_reshape_transposed(net.graph, ctx).ok());
    const Tensor after = net.result();
    EXPECT_EQ(before.shape(), after.shape());
    for (int64_t i = 0; i < before.num_elements(); ++i) EXPECT_EQ(before.as<float>()[i], after.as<float>()[i]);
    return net.ops()[0];
  };
  EXPECT_EQ(ops_after({1, 1, 4, 8}, {0, 2, 1, 3}), "Reshape");
  EXPECT_EQ(ops_after({1, 5, 1, 8}, {0, 2, 1, 3}), "Reshape");
  EXPECT_EQ(ops_after({1, 5, 1, 8}, {2, 1, 3, 0}), "Reshape");
  EXPECT_EQ(ops_after({1, 5, 4, 8}, {0, 2, 1, 3}), "Transpose");
  EXPECT_EQ(ops_after({2, 1, 3}, {2, 1, 0}), "Transpose");
}

}  // namespace
}  // namespace sprun::graph
