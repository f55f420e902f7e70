#include "graph/onnx/onnx_reader.h"

#include <gtest/gtest.h>

#include <cstring>

#include "graph/onnx/onnx_writer.h"
#include "graph/onnx/raw_cutter.h"
#include "graph/onnx/tensor_proto.h"
#include "tests/graph/onnx/onnx_text.h"
#include "tools/modelgen/modelgen.h"

namespace sprun::graph {
namespace {

OnnxModel read(const std::string& bytes) {
  auto model = read_onnx_bytes(bytes);
  EXPECT_TRUE(model.ok()) << model.status().message();
  OnnxModel empty;
  empty.graph = std::make_unique<Graph>();
  return model.ok() ? std::move(*model) : std::move(empty);
}

std::string error_of(const std::string& bytes) {
  const auto model = read_onnx_bytes(bytes);
  EXPECT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), Code::kBadModel);
  return model.status().message();
}

std::string node(const std::string& op, const std::string& inputs, const std::string& outputs,
                 const std::string& more = "") {
  std::string text = "node { op_type: '" + op + "' " + more;
  for (const auto& [list, field] : {std::pair(inputs, " input: '"), std::pair(outputs, " output: '")}) {
    std::string name;
    for (char c : list + " ") {
      if (c != ' ') {
        name += c;
        continue;
      }
      if (!name.empty()) text += field + (name == "-" ? "" : name) + "'";
      name.clear();
    }
  }
  return text + "} ";
}

const std::string kIo = "input " + float_value("x") + "output " + float_value("y");

std::vector<std::string> live_ops(const Graph& graph) {
  std::vector<std::string> ops;
  const auto order = graph.topological_order();
  EXPECT_TRUE(order.ok());
  for (NodeId n : *order) ops.push_back(graph.node(n).op_type);
  return ops;
}

TEST(OnnxReader, ReadsNodesInAnyOrderAndNamesThem) {
  const OnnxModel model = read(model_bytes(kIo + node("Abs", "t", "y") + node("Neg", "x", "t", "name: 'first'")));
  EXPECT_EQ(live_ops(*model.graph), (std::vector<std::string>{"Neg", "Abs"}));
  EXPECT_EQ(model.graph->node(0).name, "Abs_0");
  EXPECT_EQ(model.graph->node(1).name, "first");
  EXPECT_EQ(model.graph->node(0).version, 17);
  EXPECT_EQ(model.opsets.at(""), 17);
}

TEST(OnnxReader, ReadsDeclaredTypesOfInputsAndOutputs) {
  const OnnxModel model = read(model_bytes(
      "input { name: 'x' type { tensor_type { elem_type: 7 shape { dim { dim_param: 'batch' } dim { dim_value: 3 } "
      "dim { } } } } } input { name: 'z' type { tensor_type { elem_type: 1 } } } output " +
      float_value("y") + node("Abs", "x", "y")));
  const Value& x = model.graph->value(model.graph->inputs()[0]);
  EXPECT_EQ(x.dtype, DType::kS64);
  ASSERT_TRUE(x.declared);
  ASSERT_EQ(x.declared->size(), 3u);
  EXPECT_EQ((*x.declared)[0].symbol, "batch");
  EXPECT_EQ((*x.declared)[0].value, -1);
  EXPECT_EQ((*x.declared)[1].value, 3);
  EXPECT_EQ((*x.declared)[2].value, -1);
  EXPECT_FALSE(model.graph->value(model.graph->inputs()[1]).declared);
  const Value& y = model.graph->value(model.graph->outputs()[0]);
  EXPECT_EQ(y.dtype, DType::kF32);
  ASSERT_TRUE(y.declared);
}

TEST(OnnxReader, InitializersTakeThePlaceOfInputs) {
  const OnnxModel model =
      read(model_bytes(kIo + "input " + float_value("w") + "initializer { name: 'w' dims: 2 data_type: 1 "
                                                           "float_data: [1, 2] } " + node("Add", "x w", "y"),
                       "", "ir_version: 3 opset_import { version: 7 }"));
  EXPECT_EQ(model.graph->inputs().size(), 1u);
  EXPECT_NE(model.graph->constant(model.graph->find_value("w")), nullptr);
}

TEST(OnnxReader, ConstantNodesBecomeConstants) {
  const OnnxModel model = read(model_bytes(
      kIo + node("Constant", "", "a", "attribute { name: 'value_float' type: FLOAT f: 2.5 }") +
      node("Constant", "", "b", "attribute { name: 'value_ints' type: INTS ints: [4, 5] }") +
      node("Constant", "", "c", "attribute { name: 'value' type: TENSOR t { dims: 1 data_type: 6 int32_data: 7 } }") +
      node("Abs", "x", "y")));
  const auto constant = [&](const char* name) { return *model.graph->constant(model.graph->find_value(name)); };
  EXPECT_EQ(constant("a").shape().rank(), 0);
  EXPECT_EQ(constant("a").as<float>()[0], 2.5f);
  EXPECT_EQ(constant("b").shape(), Shape({2}));
  EXPECT_EQ(constant("b").as<int64_t>()[1], 5);
  EXPECT_EQ(constant("c").as<int32_t>()[0], 7);
  EXPECT_EQ(model.graph->num_live_nodes(), 1);
}

TEST(OnnxReader, LastOfSeveralConstantsWithOneNameCounts) {
  const std::string value = "attribute { name: 'value_int' type: INT i: ";
  const OnnxModel model = read(model_bytes(kIo + node("Constant", "", "a", value + "1 }") +
                                           node("Constant", "", "a", value + "2 }") + node("Abs", "x", "y")));
  EXPECT_EQ(model.graph->constant(model.graph->find_value("a"))->as<int64_t>()[0], 2);
  EXPECT_EQ(model.warnings.size(), 1u);
}

TEST(OnnxReader, ExpandsSparseInitializers) {
  const OnnxModel model = read(model_bytes(
      kIo + node("Abs", "x", "y") +
      "sparse_initializer { dims: [2, 3] values { name: 'linear' dims: 2 data_type: 1 float_data: [5, 6] } "
      "indices { dims: 2 data_type: 7 int64_data: [1, 5] } } "
      "sparse_initializer { dims: [2, 3] values { name: 'tuples' dims: 1 data_type: 2 int32_data: 9 } "
      "indices { dims: [1, 2] data_type: 7 int64_data: [1, 0] } } "));
  const Tensor& linear = *model.graph->constant(model.graph->find_value("linear"));
  EXPECT_EQ(linear.shape(), Shape({2, 3}));
  EXPECT_EQ(std::vector<float>(linear.as<float>(), linear.as<float>() + 6), (std::vector<float>{0, 5, 0, 0, 0, 6}));
  EXPECT_EQ(model.graph->constant(model.graph->find_value("tuples"))->as<uint8_t>()[3], 9);
}

TEST(OnnxReader, RefusesBrokenSparseInitializers) {
  const auto sparse = [](const std::string& dims, const std::string& indices) {
    return model_bytes(kIo + node("Abs", "x", "y") + "sparse_initializer { " + dims +
                       " values { name: 's' dims: 1 data_type: 1 float_data: 5 } indices { " + indices + " } }");
  };
  EXPECT_NE(error_of(sparse("dims: 3", "dims: 1 data_type: 7 int64_data: 3")).find("out of range"), std::string::npos);
  EXPECT_NE(error_of(sparse("dims: 3", "dims: 1 data_type: 7 int64_data: -1")).find("out of range"), std::string::npos);
  EXPECT_NE(error_of(sparse("dims: 3", "dims: 2 data_type: 7 int64_data: [0, 1]")).find("do not fit"), std::string::npos);
  EXPECT_NE(error_of(sparse("dims: [3, 3]", "dims: [1, 3] data_type: 7 int64_data: [0, 0, 0]")).find("do not fit"),
            std::string::npos);
  EXPECT_NE(error_of(sparse("dims: 3", "dims: 1 data_type: 6 int32_data: 0")).find("do not fit"), std::string::npos);
  const auto huge = read_onnx_bytes(sparse("dims: 1099511627776", "dims: 1 data_type: 7 int64_data: 0"));
  EXPECT_EQ(huge.status().code(), Code::kResourceLimit);
}

// --- errors

TEST(OnnxReader, RefusesBrokenGraphs) {
  const auto expect = [](const std::string& graph, const std::string& words) {
    const std::string message = error_of(model_bytes(graph));
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  expect(kIo + node("Abs", "nowhere", "y"), "'nowhere'");
  expect(kIo + node("Abs", "x", "y") + node("Neg", "x", "y"), "two producers");
  expect(kIo + node("Abs", "x", "x") + node("Abs", "x", "y"), "two producers");
  expect(kIo + node("Abs", "x", "z"), "'y'");
  expect(kIo + node("Add", "x b", "a") + node("Abs", "a", "b") + node("Abs", "a", "y"), "cycle");
  expect(kIo + "input " + float_value("x") + node("Abs", "x", "y"), "twice");
  expect(kIo + node("", "x", "y"), "op_type");
  expect(kIo + node("Abs", "x", "y", "attribute { name: 'a' i: 1 type: INT } attribute { name: 'a' i: 1 type: INT }"),
         "twice");
  expect(kIo + "initializer { dims: 1 data_type: 1 float_data: 1 } " + node("Abs", "x", "y"), "no name");
  expect(kIo + "initializer { name: 'w' dims: 2 data_type: 1 float_data: 1 } " + node("Abs", "x", "y"), "'w'");
  expect(kIo + "initializer { name: 'w' dims: [-2] data_type: 1 float_data: 1 } " + node("Abs", "x", "y"), "negative");
  EXPECT_NE(error_of("garbage").find("not an ONNX model"), std::string::npos);
  EXPECT_NE(error_of("").find("no graph"), std::string::npos);
  EXPECT_NE(error_of(model_bytes(kIo + node("Abs", "x", "y"), "", "ir_version: 8")).find("opset"), std::string::npos);
  EXPECT_NE(error_of(model_bytes(kIo + node("Abs", "x", "y"), "", "ir_version: 8 opset_import { version: 0 }"))
                .find("not valid"),
            std::string::npos);
  EXPECT_EQ(read_onnx("/nonexistent/model.onnx").status().code(), Code::kBadInput);
  EXPECT_EQ(read_onnx("/").status().code(), Code::kBadInput);
}

TEST(OnnxReader, ListsEverythingUnsupported) {
  const OnnxModel model = read(model_bytes(
      "input { name: 's' type { tensor_type { elem_type: 8 } } } input { name: 'q' type { sequence_type { } } } " + kIo +
      node("NoSuchOp", "x", "a", "name: 'n1'") + node("NoSuchOp", "a", "b", "name: 'n2'") +
      node("Frobnicate", "b", "c", "domain: 'com.acme' name: 'n3'") +
      node("If", "x", "y", "name: 'n4' attribute { name: 'then_branch' type: GRAPH g { output " + float_value("t") +
                               node("Hidden", "c", "t", "name: 'inner'") + "} } attribute { name: 'else_branch' type: "
                               "GRAPH g { output " + float_value("c") + "} }") +
      "initializer { name: 'w' dims: 1 data_type: 17 raw_data: 'x' } "));
  const Status status = unsupported_status(model);
  EXPECT_EQ(status.code(), Code::kBadModel);
  for (const char* words : {"ai.onnx.NoSuchOp (opset 17): nodes 'n1', 'n2'", "com.acme.Frobnicate (opset 1): node 'n3'",
                            "ai.onnx.Hidden (opset 17): node 'inner'", "input 's' is tensors of string",
                            "input 'q' is a sequence", "initializer 'w': element type float8e4m3fn"}) {
    EXPECT_NE(status.message().find(words), std::string::npos) << status.message();
  }
}

TEST(OnnxReader, WarnsAboutNewerOpsets) {
  const OnnxModel model = read(model_bytes(kIo + node("Abs", "x", "y"), "", "ir_version: 99 opset_import { version: 99 }"));
  EXPECT_EQ(model.warnings.size(), 1u);
}

// --- subgraphs

const std::string kBool = "input { name: 'c' type { tensor_type { elem_type: 9 } } } ";

std::string graph_attr(const std::string& name, const std::string& graph) {
  return "attribute { name: '" + name + "' type: GRAPH g { name: '" + name + "' " + graph + "} } ";
}

TEST(OnnxReaderSubgraphs, CapturesBecomeInputsOfBothBranches) {
  const OnnxModel model = read(model_bytes(
      kIo + kBool + "initializer { name: 'w' dims: 2 data_type: 1 float_data: [1, 2] } " + node("Abs", "x", "a") +
      node("If", "c", "y",
           graph_attr("then_branch", node("Add", "a w", "t") + "output " + float_value("t")) +
               graph_attr("else_branch", node("Sub", "x a", "e") + "output " + float_value("e")))));
  const Graph& graph = *model.graph;
  const Node& branch = *graph.producer(graph.outputs()[0]);
  ASSERT_EQ(branch.inputs.size(), 3u);
  EXPECT_EQ(graph.value(branch.inputs[1]).name, "a");
  EXPECT_EQ(graph.value(branch.inputs[2]).name, "x");
  EXPECT_EQ(branch.attrs.get_int("num_captures", -1), 2);
  const auto then_branch = branch.attrs.get_graph("then_branch");
  const auto else_branch = branch.attrs.get_graph("else_branch");
  ASSERT_EQ(then_branch->inputs().size(), 2u);
  ASSERT_EQ(else_branch->inputs().size(), 2u);
  EXPECT_EQ(then_branch->value(then_branch->inputs()[0]).users.size(), 1u);
  EXPECT_TRUE(then_branch->value(then_branch->inputs()[1]).users.empty());
  // The weight is shared, not captured.
  const ValueId w = then_branch->find_value("w");
  ASSERT_NE(then_branch->constant(w), nullptr);
  EXPECT_EQ(then_branch->constant(w)->id(), graph.constant(graph.find_value("w"))->id());
  EXPECT_EQ(else_branch->node(0).inputs[0], else_branch->inputs()[1]);
  EXPECT_EQ(else_branch->node(0).inputs[1], else_branch->inputs()[0]);
}

TEST(OnnxReaderSubgraphs, InnerBodiesCaptureThroughOuterOnes) {
  const std::string inner = graph_attr("then_branch", node("Abs", "x", "t") + "output " + float_value("t")) +
                            graph_attr("else_branch", node("Neg", "x", "t") + "output " + float_value("t"));
  const std::string outer = graph_attr("then_branch", node("If", "c", "o", inner) + "output " + float_value("o")) +
                            graph_attr("else_branch", "output " + float_value("x"));
  const OnnxModel model = read(model_bytes(kIo + kBool + node("If", "c", "y", outer)));
  const Node& branch = model.graph->node(0);
  EXPECT_EQ(branch.inputs.size(), 3u);  // c, c, x
  const auto then_branch = branch.attrs.get_graph("then_branch");
  EXPECT_EQ(then_branch->node(0).inputs.size(), 2u);
  const auto else_branch = branch.attrs.get_graph("else_branch");
  EXPECT_EQ(else_branch->outputs()[0], else_branch->inputs()[1]);
}

TEST(OnnxReaderSubgraphs, LoopHasCarriedValuesThenCaptures) {
  const std::string body = graph_attr(
      "body", "input { name: 'i' } input { name: 'cond' } input { name: 'acc' } output { name: 'cond' } output { name: "
              "'next' } " + node("Add", "acc x", "next"));
  const OnnxModel model = read(model_bytes(kIo + node("Loop", "- - x", "y", body)));
  const Node& loop = model.graph->node(0);
  ASSERT_EQ(loop.inputs.size(), 4u);
  EXPECT_EQ(loop.inputs[0], kNoValue);
  EXPECT_EQ(loop.inputs[2], model.graph->inputs()[0]);
  EXPECT_EQ(loop.inputs[3], model.graph->inputs()[0]);
  EXPECT_EQ(loop.attrs.get_int("num_carried", -1), 1);
  EXPECT_EQ(loop.attrs.get_int("num_captures", -1), 1);
  EXPECT_EQ(loop.attrs.get_graph("body")->inputs().size(), 4u);
}

TEST(OnnxReaderSubgraphs, ScanHasStatesThenScannedValues) {
  const std::string body = graph_attr("body", "input { name: 's' } input { name: 'e' } output { name: 'n' } output { "
                                              "name: 'o' } " + node("Add", "s e", "n") + node("Abs", "n", "o"));
  const std::string attr = "attribute { name: 'num_scan_inputs' type: INT i: 1 }";
  const OnnxModel model = read(model_bytes(kIo + node("Scan", "x x", "y z", body + attr)));
  EXPECT_EQ(model.graph->node(0).attrs.get_int("num_state", -1), 1);
  EXPECT_EQ(model.graph->node(0).attrs.get_int("num_captures", -1), 0);
  EXPECT_NE(error_of(model_bytes(kIo + node("Scan", "x", "y z", body + attr))).find("expected 1"), std::string::npos);
  const std::string wrong = "attribute { name: 'num_scan_inputs' type: INT i: 7 }";
  EXPECT_NE(error_of(model_bytes(kIo + node("Scan", "x x", "y z", body + wrong))).find("num_scan_inputs"),
            std::string::npos);
}

TEST(OnnxReaderSubgraphs, RefusesWrongBodiesAndDeepNesting) {
  const std::string body = graph_attr("body", "input { name: 'i' } output { name: 'i' } ");
  EXPECT_NE(error_of(model_bytes(kIo + node("Loop", "- - x", "y", body))).find("1 inputs, expected 3"),
            std::string::npos);
  const std::string short_body = graph_attr(
      "body", "input { name: 'i' } input { name: 'c' } input { name: 'v' } output { name: 'c' } ");
  EXPECT_NE(error_of(model_bytes(kIo + node("Loop", "- - x", "y", short_body))).find("expected at least 2"),
            std::string::npos);
  // Nested in binary form: the text parser has its own limit.
  onnx::GraphProto graph = message_of<onnx::GraphProto>("output { name: 'c' }");
  for (int depth = 0; depth < 200; ++depth) {
    onnx::GraphProto outer = message_of<onnx::GraphProto>("output { name: 'o' } " + node("If", "c", "o"));
    auto* attr = outer.mutable_node(0)->add_attribute();
    attr->set_name("then_branch");
    attr->set_type(onnx::AttributeProto::GRAPH);
    attr->mutable_g()->Swap(&graph);
    graph.Swap(&outer);
  }
  onnx::ModelProto model = message_of<onnx::ModelProto>("ir_version: 8 opset_import { version: 17 }");
  model.mutable_graph()->Swap(&graph);
  EXPECT_NE(error_of(model.SerializeAsString()).find("nested too deeply"), std::string::npos);
}

// --- functions

const std::string kImports = "ir_version: 8 opset_import { version: 17 } opset_import { domain: 'local' version: 1 }";

std::string function(const std::string& name, const std::string& text) {
  return " functions { domain: 'local' name: '" + name + "' " + text + "} ";
}

TEST(OnnxReaderFunctions, InlinesCallsWithAttributes) {
  const std::string scale = function(
      "Scale", "input: 'v' output: 'r' attribute: 'factor' opset_import { version: 13 } " +
                   node("Constant", "", "k", "attribute { name: 'value_float' type: FLOAT ref_attr_name: 'factor' }") +
                   node("Mul", "v k", "r", "name: 'mul' attribute { name: 'f' type: FLOAT ref_attr_name: 'factor' } "
                                           "attribute { name: 'gone' type: INT ref_attr_name: 'other' }"));
  const std::string call = "domain: 'local' attribute { name: 'factor' type: FLOAT f: ";
  const OnnxModel model = read(model_bytes(kIo + node("Scale", "x", "t", call + "2 } name: 'first'") +
                                               node("Scale", "t", "y", call + "3 }"),
                                           scale, kImports));
  const Graph& graph = *model.graph;
  EXPECT_EQ(live_ops(graph), (std::vector<std::string>{"Mul", "Mul"}));
  const Node& first = graph.node(0);
  EXPECT_EQ(first.name, "first/mul");
  EXPECT_EQ(graph.node(1).name, "Scale_1/mul");
  EXPECT_EQ(first.version, 13);
  EXPECT_EQ(first.attrs.get_float("f", 0), 2.0f);
  EXPECT_FALSE(first.attrs.has("gone"));
  EXPECT_EQ(graph.constant(first.inputs[1])->as<float>()[0], 2.0f);
  EXPECT_EQ(graph.value(first.outputs[0]).name, "t");
  EXPECT_EQ(graph.constant(graph.node(1).inputs[1])->as<float>()[0], 3.0f);
}

TEST(OnnxReaderFunctions, ReadsDefaultAttributesAndOverloads) {
  onnx::ModelProto proto;
  ASSERT_TRUE(proto.ParseFromString(model_bytes(
      kIo + node("F", "x", "y", "domain: 'local'"),
      function("F", "input: 'v' output: 'r' " +
                        node("Abs", "v", "r", "attribute { name: 'a' type: INT ref_attr_name: 'p' }")) +
          function("F", "input: 'v' output: 'r' " +
                            node("Neg", "v", "r", "attribute { name: 'a' type: INT ref_attr_name: 'p' }")),
      kImports)));
  // Fields that the installed onnx.proto may not have: FunctionProto.attribute_proto, .overload, NodeProto.overload.
  const std::string def = message_of<onnx::AttributeProto>("name: 'p' type: INT i: 42").SerializeAsString();
  proto.mutable_functions(1)->mutable_unknown_fields()->AddLengthDelimited(11, def);
  proto.mutable_functions(1)->mutable_unknown_fields()->AddLengthDelimited(13, "second");
  proto.mutable_graph()->mutable_node(0)->mutable_unknown_fields()->AddLengthDelimited(8, "second");
  const OnnxModel model = read(proto.SerializeAsString());
  EXPECT_EQ(live_ops(*model.graph), std::vector<std::string>{"Neg"});
  EXPECT_EQ(model.graph->node(0).attrs.get_int("a", 0), 42);
}

TEST(OnnxReaderFunctions, InlinesNestedCallsAndCapturesInTheirBodies) {
  const std::string inner = function("Inner", "input: 'p' input: 'q' output: 'r' " +
                                                  node("If", "q", "r",
                                                       graph_attr("then_branch", node("Abs", "p", "t") + "output { name: 't' } ") +
                                                           graph_attr("else_branch", "output { name: 'p' } ")));
  const std::string outer = function("Outer", "input: 'v' input: 'c' output: 'w' " +
                                                  node("Neg", "v", "n") + node("Inner", "n c", "w", "domain: 'local'"));
  const OnnxModel model = read(model_bytes(kIo + kBool + node("Outer", "x c", "y", "domain: 'local'"), inner + outer,
                                           kImports));
  EXPECT_EQ(live_ops(*model.graph), (std::vector<std::string>{"Neg", "If"}));
  EXPECT_EQ(model.graph->node(1).inputs.size(), 2u);
}

TEST(OnnxReaderFunctions, PassesInputsThroughAndLeavesOptionalsOut) {
  const std::string f = function("F", "input: 'a' input: 'b' output: 'a' output: 'r' " + node("Clip", "a b", "r"));
  const OnnxModel model = read(model_bytes(kIo + node("F", "x", "y z", "domain: 'local'"), f, kImports));
  EXPECT_EQ(live_ops(*model.graph), (std::vector<std::string>{"Clip", "Identity"}));
  EXPECT_EQ(model.graph->node(0).inputs[1], kNoValue);
}

TEST(OnnxReaderFunctions, RefusesRecursionAndExplosion) {
  const std::string call = "domain: 'local'";
  EXPECT_NE(error_of(model_bytes(kIo + node("F", "x", "y", call),
                                 function("F", "input: 'a' output: 'b' " + node("F", "a", "b", call)), kImports))
                .find("calls itself"),
            std::string::npos);
  EXPECT_NE(error_of(model_bytes(kIo + node("F", "x x", "y", call),
                                 function("F", "input: 'a' output: 'b' " + node("Abs", "a", "b")), kImports))
                .find("has 2 inputs"),
            std::string::npos);
  std::string functions = function("F0", "input: 'a' output: 'b' " + node("Abs", "a", "b"));
  for (int i = 1; i < 50; ++i) {
    const std::string callee = "F" + std::to_string(i - 1);
    functions += function("F" + std::to_string(i), "doc_string: '" + std::string(100, 'x') + "' input: 'a' output: 'b' " +
                                                       node(callee, "a", "m", call) + node(callee, "m", "b", call));
  }
  const auto model = read_onnx_bytes(model_bytes(kIo + node("F49", "x", "y", call), functions, kImports));
  EXPECT_EQ(model.status().code(), Code::kResourceLimit) << model.status().message();
}

// --- large weights

std::string model_with_weights(size_t floats) {
  onnx::ModelProto proto;
  EXPECT_TRUE(proto.ParseFromString(model_bytes(kIo + node("Abs", "x", "y"))));
  for (const char* name : {"w1", "w2"}) {
    auto* tensor = proto.mutable_graph()->add_initializer();
    tensor->set_name(name);
    tensor->set_data_type(onnx::TensorProto::FLOAT);
    tensor->add_dims(static_cast<int64_t>(floats));
    std::vector<float> values(floats, name[1] == '1' ? 1.0f : 2.0f);
    tensor->set_raw_data(values.data(), floats * sizeof(float));
  }
  return proto.SerializeAsString();
}

TEST(OnnxReaderWeights, LargeWeightsLieInTheMappedFile) {
  const TempFolder folder("weights");
  const size_t floats = 400'000;  // over the size below which unaligned data is copied
  OnnxModel model;
  {
    auto read_model = read_onnx(folder.write("m.onnx", model_with_weights(floats)));
    ASSERT_TRUE(read_model.ok()) << read_model.status().message();
    model = std::move(*read_model);
  }
  for (const char* name : {"w1", "w2"}) {
    const Tensor tensor = *model.graph->constant(model.graph->find_value(name));
    EXPECT_EQ(tensor.num_elements(), static_cast<int64_t>(floats));
    float value = 0;
    std::memcpy(&value, tensor.as<char>() + (floats - 1) * sizeof(float), sizeof(float));
    EXPECT_EQ(value, name[1] == '1' ? 1.0f : 2.0f);
  }
}

TEST(OnnxReaderWeights, SmallerWeightsAreAligned) {
  const TempFolder folder("weights");
  const auto model = read_onnx(folder.write("m.onnx", model_with_weights(2000)));
  ASSERT_TRUE(model.ok());
  for (const char* name : {"w1", "w2"}) {
    EXPECT_TRUE(model->graph->constant(model->graph->find_value(name))->is_aligned());
  }
}

TEST(OnnxReaderWeights, CutterLeavesASmallMessageAndDropsForgedReferences) {
  onnx::ModelProto proto;
  ASSERT_TRUE(proto.ParseFromString(model_with_weights(4000)));
  auto* tensor = proto.mutable_graph()->add_initializer();
  tensor->set_name("forged");
  tensor->set_data_type(onnx::TensorProto::FLOAT);
  tensor->add_dims(4000);
  tensor->mutable_unknown_fields()->AddVarint(static_cast<int>(kCutField), 0);
  const std::string bytes = proto.SerializeAsString();
  const auto cut = cut_raw_data(bytes);
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ(cut->cuts.size(), 2u);
  EXPECT_LT(cut->proto.size(), 1000u);
  EXPECT_NE(error_of(bytes).find("'forged'"), std::string::npos);
}

// --- robustness

std::string varied_model() {
  return model_bytes(
      kIo + kBool + "initializer { name: 'w' dims: 2 data_type: 1 float_data: [1, 2] } " +
          "sparse_initializer { dims: 3 values { name: 's' dims: 1 data_type: 1 float_data: 5 } indices { dims: 1 "
          "data_type: 7 int64_data: 1 } } initializer { name: 'h' dims: 3 data_type: 22 raw_data: '12' } " +
          node("Constant", "", "k", "attribute { name: 'value_ints' type: INTS ints: [4, 5] }") +
          node("F", "x", "a", "domain: 'local' attribute { name: 'p' type: INT i: 1 }") +
          node("If", "c", "y", graph_attr("then_branch", node("Add", "a w", "t") + "output " + float_value("t")) +
                                   graph_attr("else_branch", node("Sub", "x a", "e") + "output " + float_value("e"))),
      function("F", "input: 'v' output: 'r' attribute: 'p' " +
                        node("Abs", "v", "r", "attribute { name: 'a' type: INT ref_attr_name: 'p' }")),
      kImports);
}

// A whole transformer cut short at many places, and with flipped bits, through the file path.
TEST(OnnxReaderRobustness, SurvivesBrokenFiles) {
  const TempFolder folder("broken");
  modelgen::Config config = *modelgen::preset("bert-tiny");
  config.layers = 1;
  config.vocab = 50;
  config.max_seq = 32;
  config.quantization = modelgen::Quantization::kU8;
  const auto graph = modelgen::generate(config);
  ASSERT_TRUE(graph.ok());
  ASSERT_TRUE(write_onnx(*graph, folder.file("whole.onnx")).ok());
  const std::string whole = read_bytes(folder.file("whole.onnx"));
  for (size_t i = 0; i < 120; ++i) {
    std::string bytes = whole;
    if (i % 2 == 0) {
      bytes.resize(whole.size() * i / 120);
    } else {
      for (size_t flip = 0; flip < 4; ++flip) bytes[(i * 7919 + flip * 104729) % 30'000] ^= static_cast<char>(1 << i % 8);
    }
    const auto model = read_onnx(folder.write("m.onnx", bytes));
    EXPECT_TRUE(model.ok() || model.status().code() == Code::kBadModel || model.status().code() == Code::kResourceLimit)
        << model.status().message();
  }
}

TEST(OnnxReaderRobustness, SurvivesEveryTruncation) {
  const std::string bytes = varied_model();
  read(bytes);
  for (size_t length = 0; length < bytes.size(); ++length) {
    const auto model = read_onnx_bytes(std::string_view(bytes).substr(0, length));
    EXPECT_TRUE(model.ok() || model.status().code() != Code::kInternal) << length;
  }
}

TEST(OnnxReaderRobustness, SurvivesRandomChanges) {
  const std::string original = varied_model();
  uint32_t state = 12345;
  const auto random = [&](size_t limit) {
    state = state * 1664525u + 1013904223u;
    return static_cast<size_t>(state >> 8) % limit;
  };
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = original;
    for (size_t change = 0; change <= random(4); ++change) {
      const size_t at = random(bytes.size());
      switch (random(4)) {
        case 0: bytes[at] = static_cast<char>(bytes[at] ^ (1 << random(8))); break;
        case 1: bytes[at] = static_cast<char>(random(256)); break;
        case 2: bytes.erase(at, 1 + random(8)); break;
        case 3: bytes.insert(at, bytes.substr(random(bytes.size()), random(16))); break;
      }
    }
    const auto model = read_onnx_bytes(bytes);
    EXPECT_TRUE(model.ok() || model.status().code() != Code::kInternal) << model.status().message();
  }
}

}  // namespace
}  // namespace sprun::graph
