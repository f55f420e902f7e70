#include "graph/onnx/onnx_writer.h"

#include <gtest/gtest.h>

#include <numeric>

#include "graph/onnx/onnx_reader.h"
#include "tests/graph/onnx/onnx_text.h"

namespace sprun::graph {
namespace {

Tensor iota(int64_t count) {
  Tensor tensor = *Tensor::allocate(DType::kF32, Shape({count}));
  auto* data = tensor.mutable_view().as<float>();
  std::iota(data, data + count, 0.0f);
  return tensor;
}

// y = Relu(x + w) * s
Graph small_graph(int64_t size) {
  Graph graph;
  const ValueId x = graph.add_input("x", DType::kF32, std::vector<DimInfo>{{-1, "batch"}, {size, ""}, {-1, ""}});
  const ValueId w = graph.add_constant("w", iota(size));
  const ValueId s = graph.add_constant("s", iota(1));
  const NodeId add = graph.add_node("", "Add", 13, {x, w}, {"a"});
  const NodeId relu = graph.add_node("", "Relu", 13, {graph.node(add).outputs[0]}, {"r"});
  const NodeId mul = graph.add_node("com.acme", "Scale", 2, {graph.node(relu).outputs[0], kNoValue, s}, {"y"});
  graph.node(mul).attrs.set("alpha", 0.5f);
  graph.node(mul).attrs.set("axes", std::vector<int64_t>{1, -1});
  graph.node(mul).attrs.set("names", std::vector<std::string>{"p", "q"});
  graph.node(mul).attrs.set("table", iota(3));
  graph.set_outputs(graph.node(mul).outputs);
  return graph;
}

TEST(OnnxWriter, ReaderGivesTheSameGraphBack) {
  const TempFolder folder("writer");
  const std::string path = folder.file("m.onnx");
  const Status status = write_onnx(small_graph(4), path, {.metadata_props = {{"key", "value"}}});
  ASSERT_TRUE(status.ok()) << status.message();
  const auto model = read_onnx(path);
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_EQ(model->ir_version, 8);
  EXPECT_EQ(model->opsets, (std::map<std::string, int>{{"", 13}, {"com.acme", 2}}));
  EXPECT_EQ(model->producer_name, "sprun");
  ASSERT_EQ(model->metadata_props.size(), 1u);
  EXPECT_EQ(model->metadata_props[0].second, "value");
  const Graph& graph = *model->graph;
  ASSERT_EQ(graph.inputs().size(), 1u);
  const Value& x = graph.value(graph.inputs()[0]);
  ASSERT_TRUE(x.declared);
  EXPECT_EQ((*x.declared)[0].symbol, "batch");
  EXPECT_EQ((*x.declared)[1].value, 4);
  ASSERT_EQ(graph.num_live_nodes(), 3);
  const Node& last = *graph.producer(graph.outputs()[0]);
  EXPECT_EQ(last.op_type, "Scale");
  EXPECT_EQ(last.inputs[1], kNoValue);
  EXPECT_EQ(last.attrs.get_float("alpha", 0), 0.5f);
  EXPECT_EQ(last.attrs.get_ints("axes"), (std::vector<int64_t>{1, -1}));
  EXPECT_EQ(last.attrs.get_tensor("table")->as<float>()[2], 2.0f);
  EXPECT_EQ(graph.constant(graph.find_value("w"))->as<float>()[3], 3.0f);
}

TEST(OnnxWriter, WritesExternalData) {
  const TempFolder folder("writer");
  const std::string path = folder.file("m.onnx");
  const WriteOptions options{.external = WriteOptions::External::kAlways};
  ASSERT_TRUE(write_onnx(small_graph(1000), path, options).ok());
  EXPECT_EQ(std::filesystem::file_size(path + ".data"), 4000u);
  EXPECT_LT(std::filesystem::file_size(path), 1000u);
  // Writing over files that are mapped leaves the readers theirs.
  const auto model = read_onnx(path);
  ASSERT_TRUE(model.ok()) << model.status().message();
  ASSERT_TRUE(write_onnx(*model->graph, path, options).ok());
  const auto again = read_onnx(path);
  ASSERT_TRUE(again.ok()) << again.status().message();
  for (const auto* m : {&model, &again}) {
    const Graph& graph = *(*m)->graph;
    EXPECT_EQ(graph.constant(graph.find_value("w"))->as<float>()[999], 999.0f);
  }
  // Small constants stay in the model file.
  EXPECT_TRUE(again->graph->constant(again->graph->find_value("s")) != nullptr);
  for (const auto& file : std::filesystem::directory_iterator(folder.file("."))) {
    EXPECT_EQ(file.path().string().find(".tmp"), std::string::npos);
  }
}

TEST(OnnxWriter, SwitchesToExternalDataByItself) {
  const TempFolder folder("writer");
  ASSERT_TRUE(write_onnx(small_graph(1000), folder.file("m.onnx"), {.max_embedded_bytes = 2000}).ok());
  EXPECT_TRUE(std::filesystem::exists(folder.file("m.onnx.data")));
}

TEST(OnnxWriter, TurnsCapturesBackIntoOuterNames) {
  const TempFolder folder("writer");
  const std::string branch = "type: GRAPH g { name: 'b' node { op_type: 'Add' input: 'a' input: 'w' output: 'a_1' } "
                             "output { name: 'a_1' } } }";
  const std::string bytes = model_bytes(
      "input " + float_value("x") + "input { name: 'c' type { tensor_type { elem_type: 9 } } } output " +
      float_value("y") + "initializer { name: 'w' dims: 2 data_type: 1 float_data: [1, 2] } "
      "node { op_type: 'Abs' input: 'x' output: 'a' } node { op_type: 'If' input: 'c' output: 'y' "
      "attribute { name: 'then_branch' " + branch + " attribute { name: 'else_branch' type: GRAPH g { name: 'e' "
      "output { name: 'a' } } } }");
  const auto first = read_onnx_bytes(bytes);
  ASSERT_TRUE(first.ok()) << first.status().message();
  ASSERT_TRUE(write_onnx(*first->graph, folder.file("m.onnx")).ok());
  onnx::ModelProto proto;
  ASSERT_TRUE(proto.ParseFromString(read_bytes(folder.file("m.onnx"))));
  const auto& node = proto.graph().node(1);
  EXPECT_EQ(node.input_size(), 1);
  EXPECT_EQ(node.attribute_size(), 2);
  EXPECT_EQ(node.attribute(0).g().input_size(), 0);
  EXPECT_EQ(node.attribute(0).g().node(0).input(0), "a");
  EXPECT_EQ(node.attribute(1).g().node(0).op_type(), "Identity");
  const auto second = read_onnx(folder.file("m.onnx"));
  ASSERT_TRUE(second.ok()) << second.status().message();
  EXPECT_EQ(second->graph->node(1).inputs.size(), 2u);
}

TEST(OnnxWriter, PacksFourBitTypesAndRaisesTheIrVersion) {
  const TempFolder folder("writer");
  Graph graph;
  Tensor q = *Tensor::zeros(DType::kS4, Shape({3}));
  q.mutable_view().as<int8_t>()[2] = -3;
  const ValueId v = graph.add_constant("q", q);
  const NodeId cast = graph.add_node("", "Cast", 21, {v}, {"y"});
  graph.set_outputs(graph.node(cast).outputs);
  ASSERT_TRUE(write_onnx(graph, folder.file("m.onnx")).ok());
  const auto model = read_onnx(folder.file("m.onnx"));
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_EQ(model->ir_version, 10);
  EXPECT_EQ(model->graph->constant(model->graph->find_value("q"))->as<int8_t>()[2], -3);
}

TEST(OnnxWriter, RefusesWhatAFileCannotHold) {
  const TempFolder folder("writer");
  Graph graph = small_graph(2);
  graph.add_node("", "Abs", 17, {graph.inputs()[0]}, {"other"});
  EXPECT_EQ(write_onnx(graph, folder.file("m.onnx")).code(), Code::kBadModel);
  EXPECT_FALSE(std::filesystem::exists(folder.file("m.onnx")));
  EXPECT_EQ(write_onnx(small_graph(2), folder.file("absent/m.onnx")).code(), Code::kUsage);
}

}  // namespace
}  // namespace sprun::graph
