// Integer sums beyond float16's range survive when they are scaled back into it.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "graph/ir/graph.h"
#include "graph/ops/evaluate.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"
#include "runtime/base/half.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {

Result<int> pass_widen_scaled_sums(Graph& graph, PassContext& ctx);

namespace {

constexpr int64_t kK = 100;

template <class T>
Tensor filled(const Shape& shape, T value) {
  Tensor tensor = Tensor::allocate(dtype_of<T>(), shape).value();
  for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.mutable_view().as<T>()[i] = value;
  return tensor;
}

NodeId append(Graph& graph, const std::string& op, int version, const std::vector<ValueId>& inputs) {
  const NodeId n = graph.add_node("", op, version, inputs, {graph.unique_name(op)});
  graph.node(n).name = op;
  graph.node(n).def = find_op("", op, version);
  return n;
}

// y = Cast(MatMulInteger(x, w), float16) * float16(s); every sum is kK * 255 * 100 = 2550000.
struct Scaled {
  explicit Scaled(bool scale_first) {
    x = graph.add_input("x", DType::kU8, {});
    s = graph.add_input("s", DType::kF16, {});
    const ValueId w = graph.add_constant("w", filled<int8_t>({kK, 3}, 100));
    const NodeId sums = append(graph, "MatMulInteger", 10, {x, w});
    graph.value(out(sums)).dtype = DType::kS32;
    const NodeId cast = append(graph, "Cast", 13, {out(sums)});
    graph.node(cast).attrs.set("to", int64_t{10});
    graph.value(out(cast)).dtype = DType::kF16;
    const NodeId mul = scale_first ? append(graph, "Mul", 14, {s, out(cast)}) : append(graph, "Mul", 14, {out(cast), s});
    graph.value(out(mul)).dtype = DType::kF16;
    graph.set_outputs({out(mul)});
  }

  ValueId out(NodeId n) const { return graph.node(n).outputs[0]; }

  float first_result() const {
    std::map<ValueId, Tensor> values = {{x, filled<uint8_t>({2, kK}, 255)}, {s, filled({1}, to_float16(0.001F))}};
    ThreadPool pool(1);
    const std::vector<NodeId> order = graph.topological_order().value();
    for (NodeId n : order) {
      std::vector<ConstTensorView> views;
      for (ValueId v : graph.node(n).inputs) {
        views.push_back(graph.constant(v) ? graph.constant(v)->view() : values.at(v).view());
      }
      values[graph.node(n).outputs[0]] = evaluate(graph.node(n), views, {.pool = &pool}).value()[0];
    }
    const Tensor& y = values.at(graph.outputs()[0]);
    EXPECT_EQ(y.dtype(), DType::kF16);
    return to_float(y.view().as<Float16>()[0]);
  }

  Graph graph;
  ValueId x = kNoValue, s = kNoValue;
};

TEST(WidenScaledSums, SumsBeyondHalfPrecisionAreScaledExactly) {
  for (const bool scale_first : {false, true}) {
    Scaled model(scale_first);
    EXPECT_TRUE(std::isinf(model.first_result())) << "the graph as it is written";
    PassContext ctx;
    EXPECT_EQ(pass_widen_scaled_sums(model.graph, ctx).value(), 1);
    EXPECT_NEAR(model.first_result(), 2550.0F, 4.0F);
    EXPECT_EQ(pass_widen_scaled_sums(model.graph, ctx).value(), 0) << "a second run changes nothing";
  }
}

}  // namespace
}  // namespace sprun::graph
