// Which heads of a model compute their last row only, and how.
#include "runtime/generate/last_row.h"

#include <gtest/gtest.h>

#include "graph/ops/op.h"

namespace sprun {
namespace {

using graph::Graph;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

constexpr int64_t kTokens = 4, kWidth = 8, kVocabulary = 16;

struct Head {
  Graph graph;
  ValueId x;

  Head() : x(graph.add_input("x", DType::kF32, std::nullopt)) { graph.value(x).shape = Shape{1, kTokens, kWidth}; }

  ValueId constant(const std::string& name, DType dtype, Shape shape) {
    return graph.add_constant(name, Tensor::zeros(dtype, shape).value());
  }
  ValueId add(const std::string& domain, const std::string& op, std::vector<ValueId> inputs, Shape shape) {
    const NodeId n = graph.add_node(domain, op, 1, std::move(inputs), {graph.unique_name(op)});
    graph.node(n).name = op;
    const ValueId y = graph.node(n).outputs[0];
    graph.value(y).dtype = DType::kF32;
    graph.value(y).shape = shape;
    return y;
  }
  ValueId int8_layer(ValueId in, const std::string& x_quant) {
    const ValueId y = add("sprun", "LinearInt8",
                          {in, constant("w" + x_quant, DType::kS8, Shape{kWidth, kVocabulary}),
                           constant("s" + x_quant, DType::kF32, Shape{1})},
                          Shape{1, kTokens, kVocabulary});
    graph.node(graph.value(y).producer).attrs.set("x_quant", x_quant);
    return y;
  }
  bool keep() { return keep_last_row(graph, kTokens).value(); }
  const Node& producer(ValueId v) const { return *graph.producer(v); }
};

TEST(LastRow, IsCutOutBeforeAFloatHead) {
  Head head;
  const ValueId product = head.add("", "MatMul", {head.x, head.constant("w", DType::kF32, Shape{kWidth, kVocabulary})},
                                   Shape{1, kTokens, kVocabulary});
  const ValueId y = head.add("", "Tanh", {product}, Shape{1, kTokens, kVocabulary});
  head.graph.set_outputs({y});
  ASSERT_TRUE(head.keep());
  const ValueId cut = head.producer(product).inputs[0];
  EXPECT_TRUE(head.producer(cut).is("Slice"));
  EXPECT_EQ(head.graph.value(cut).shape, (Shape{1, 1, kWidth}));
  EXPECT_EQ(head.producer(cut).inputs[0], head.x);
}

// The range of the codes is that of all rows, so they are made before the cut.
TEST(LastRow, IsCutOutOfTheCodesOfAnInt8Head) {
  Head head;
  const ValueId y = head.int8_layer(head.x, "dynamic_tensor");
  head.graph.set_outputs({y});
  ASSERT_TRUE(head.keep());
  const Node& layer = head.producer(y);
  EXPECT_EQ(layer.attrs.get_string("x_quant", ""), "static");
  const ValueId cut = layer.inputs[0];
  EXPECT_EQ(head.graph.value(cut).shape, (Shape{1, 1, kWidth}));
  EXPECT_EQ(head.graph.value(cut).dtype, DType::kU8);
  const ValueId codes = head.producer(cut).inputs[0];
  const Node& quantise = head.producer(codes);
  EXPECT_TRUE(quantise.is("DynamicQuantizeLinear"));
  EXPECT_EQ(quantise.inputs[0], head.x);
  EXPECT_EQ(layer.input(6), quantise.outputs[1]);
  EXPECT_EQ(layer.input(7), quantise.outputs[2]);
}

TEST(LastRow, IsCutOutBeforeAnInt8HeadWithARangeForEachRow) {
  Head head;
  const ValueId y = head.int8_layer(head.x, "dynamic_row");
  head.graph.set_outputs({y});
  ASSERT_TRUE(head.keep());
  EXPECT_EQ(head.producer(head.producer(y).inputs[0]).inputs[0], head.x);
}

TEST(LastRow, StaysAmongAllWhereOthersAreUsed) {
  Head head;
  const ValueId y = head.int8_layer(head.x, "dynamic_tensor");
  head.add("", "Tanh", {y}, Shape{1, kTokens, kVocabulary});
  head.graph.set_outputs({y});
  EXPECT_FALSE(head.keep());
  Head softmax;  // over the tokens
  softmax.graph.set_outputs({softmax.add("", "Softmax", {softmax.int8_layer(softmax.x, "dynamic_row")},
                                         Shape{1, kTokens, kVocabulary})});
  EXPECT_FALSE(softmax.keep());
}

}  // namespace
}  // namespace sprun
