// QuantizeLinear moves in front of what only moves elements, and the numbers stay.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "graph/ir/graph.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {

Result<int> pass_hoist_quantize(Graph& graph, PassContext& ctx);

namespace {

template <class T>
Tensor scalar_of(T value) {
  Tensor tensor = Tensor::allocate(dtype_of<T>(), {}).value();
  tensor.mutable_view().as<T>()[0] = value;
  return tensor;
}

// Nodes one after the other on x [2, 3, 8].
class Chain {
 public:
  Chain() { at_ = x_ = graph.add_input("x", DType::kF32, {}); }

  ValueId constant(Tensor tensor) { return graph.add_constant("c" + std::to_string(count_++), std::move(tensor)); }
  Node& then(const std::string& op, std::vector<ValueId> others = {}) {
    others.insert(others.begin(), at_);
    const NodeId n = graph.add_node("", op, 17, std::move(others), {"v" + std::to_string(count_++)});
    graph.node(n).name = "n" + std::to_string(n);
    graph.node(n).def = find_op("", op, 17);
    at_ = graph.node(n).outputs[0];
    return graph.node(n);
  }
  void quantize(float scale, uint8_t zero) { quantize_op("QuantizeLinear", scale, zero); }
  void dequantize(float scale, uint8_t zero) { quantize_op("DequantizeLinear", scale, zero); }
  void transpose() { then("Transpose").attrs.set("perm", std::vector<int64_t>{1, 0, 2}); }
  void flatten() { then("Flatten").attrs.set("axis", int64_t{1}); }
  ValueId at() const { return at_; }

  Tensor run() {
    std::mt19937 engine(5);
    std::uniform_real_distribution<float> uniform(-1.5F, 1.5F);
    Tensor x = Tensor::allocate(DType::kF32, {2, 3, 8}).value();
    for (int64_t i = 0; i < x.num_elements(); ++i) x.mutable_view().as<float>()[i] = uniform(engine);
    std::map<ValueId, Tensor> values = {{x_, x}};
    ThreadPool pool(1);
    const std::vector<NodeId> order = graph.topological_order().value();
    for (NodeId n : order) {
      std::vector<ConstTensorView> views;
      for (ValueId v : graph.node(n).inputs) {
        views.push_back(graph.constant(v) ? graph.constant(v)->view() : values[v].view());
      }
      values[graph.node(n).outputs[0]] = evaluate(graph.node(n), views, {.pool = &pool}).value()[0];
    }
    return values[graph.outputs()[0]];
  }

  // Runs the pass, checks that the result stays and returns the op types in order.
  std::vector<std::string> after_pass() {
    graph.set_outputs({at_});
    const Tensor before = run();
    PassContext ctx;
    EXPECT_TRUE(pass_hoist_quantize(graph, ctx).ok());
    const Tensor after = run();
    EXPECT_EQ(before.shape(), after.shape());
    EXPECT_EQ(before.dtype(), after.dtype());
    EXPECT_EQ(std::memcmp(before.data(), after.data(), static_cast<size_t>(before.size_bytes())), 0);
    EXPECT_EQ(pass_hoist_quantize(graph, ctx).value(), 0) << "a second run changes nothing";
    std::vector<std::string> ops;
    const std::vector<NodeId> order = graph.topological_order().value();
    for (NodeId n : order) ops.push_back(graph.node(n).op_type);
    return ops;
  }

  Graph graph;

 private:
  void quantize_op(const std::string& op, float scale, uint8_t zero) {
    const ValueId s = constant(scalar_of(scale));
    then(op, {s, constant(scalar_of(zero))});
  }

  ValueId x_ = kNoValue, at_ = kNoValue;
  int count_ = 0;
};

using Ops = std::vector<std::string>;

TEST(HoistQuantize, MovesInFrontOfWhatMovesElements) {
  Chain c;
  c.then("Relu");
  c.flatten();
  c.then("Unsqueeze", {c.constant([] {
    Tensor axes = Tensor::allocate(DType::kS64, {1}).value();
    axes.mutable_view().as<int64_t>()[0] = 1;
    return axes;
  }())});
  c.transpose();
  c.quantize(0.02F, 3);
  c.dequantize(0.02F, 3);
  EXPECT_EQ(c.after_pass(), (Ops{"Relu", "QuantizeLinear", "Flatten", "Unsqueeze", "Transpose", "DequantizeLinear"}));
}

TEST(HoistQuantize, CodesThatWereDequantizedAreTakenAgain) {
  Chain c;
  c.quantize(0.013F, 120);
  c.dequantize(0.013F, 120);
  c.transpose();
  c.quantize(0.013F, 120);
  c.dequantize(0.013F, 120);
  EXPECT_EQ(c.after_pass(), (Ops{"QuantizeLinear", "Transpose", "DequantizeLinear"}));
}

TEST(HoistQuantize, OtherScalesAndOtherUsersStay) {
  Chain scales;
  scales.quantize(0.013F, 120);
  scales.dequantize(0.013F, 120);
  scales.quantize(0.014F, 120);
  scales.dequantize(0.014F, 120);
  EXPECT_EQ(scales.after_pass().size(), 4U);
  Chain used;
  used.transpose();
  const ValueId moved = used.at();
  used.quantize(0.013F, 120);
  used.dequantize(0.013F, 120);
  used.then("Add", {moved});
  EXPECT_EQ(used.after_pass(), (Ops{"Transpose", "QuantizeLinear", "DequantizeLinear", "Add"}));
}

}  // namespace
}  // namespace sprun::graph
