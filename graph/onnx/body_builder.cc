// Subgraphs and model-local functions: the parts of GraphBuilder that enter another scope.
#include <algorithm>
#include <utility>

#include "graph/onnx/graph_builder.h"
#include "graph/ops/op.h"

namespace sprun::graph {

namespace {
constexpr int kMaxDepth = 64;  // calls and subgraphs inside each other
// Functions that call others twice grow exponentially. What a call costs even when the function is empty counts too.
constexpr size_t kMaxInlinedBytes = size_t{256} << 20;
constexpr size_t kBytesPerCall = 4096;

Status bad(const std::string& text) { return {Code::kBadModel, text}; }

Status check_depth(const Scope& scope, const onnx::NodeProto* node) {
  if (scope.depth < kMaxDepth) return {};
  return bad("subgraphs and functions are nested too deeply" +
             (node == nullptr ? std::string() : " at " + display_name(*node)));
}
}  // namespace

// --- subgraphs

Result<GraphBuilder::Body> GraphBuilder::build_body(const onnx::AttributeProto& attr, Scope& scope) {
  SPRUN_TRY(check_depth(scope, nullptr));
  Body body;
  body.attr_name = attr.name();
  body.graph = std::make_unique<Graph>();
  body.graph->name = attr.g().name();
  GraphState state{body.graph.get(), {}};
  Scope inner{.state = &state, .outer = &scope, .call = scope.call, .opsets = scope.opsets, .depth = scope.depth + 1};
  auto status = build_graph(attr.g(), inner);
  if (!status.ok()) return status.with_context("subgraph '" + attr.name() + "'");
  body.captures = std::move(inner.captures);
  return body;
}

// How many inputs a body has by itself. Also pads the inputs of the node, so that captures can follow them, and sets
// the attributes that say where they begin.
Result<size_t> GraphBuilder::formal_inputs(const onnx::NodeProto& node, int version, const std::vector<Body>& bodies,
                                           std::vector<ValueId>* inputs, AttrMap* attrs) const {
  const bool standard = node.domain().empty() || node.domain() == "ai.onnx";
  if (standard && node.op_type() == "If") {
    inputs->resize(1, kNoValue);
    return size_t{0};
  }
  if (standard && node.op_type() == "Loop") {
    if (inputs->size() < 2) inputs->resize(2, kNoValue);
    attrs->set("num_carried", static_cast<int64_t>(inputs->size() - 2));
    return inputs->size();
  }
  if (standard && node.op_type() == "Scan") {
    const size_t skipped = version < 9 ? 1 : 0;  // sequence_lens
    const int64_t scanned = attrs->get_int("num_scan_inputs", 0);
    if (scanned < 0 || inputs->size() < skipped || std::cmp_greater(scanned, inputs->size() - skipped)) {
      return bad(display_name(node) + " has num_scan_inputs " + std::to_string(scanned) + ", but " +
                 std::to_string(inputs->size()) + " inputs");
    }
    const size_t formal = inputs->size() - skipped;
    attrs->set("num_state", static_cast<int64_t>(formal) - scanned);
    return formal;
  }
  return bodies.front().graph->inputs().size();  // an op without definition: nothing to check against
}

// Bodies compute every output of the node, Loop also its condition; carried values and states come first among them.
Status GraphBuilder::check_body_outputs(const onnx::NodeProto& node, const Body& body, const AttrMap& attrs) const {
  const bool loop = attrs.has("num_carried");
  const int64_t first = loop ? 1 : 0;
  const int64_t carried = loop ? attrs.get_int("num_carried", 0) : attrs.get_int("num_state", 0);
  const int64_t needed = first + std::max<int64_t>(carried, node.output_size());
  const auto got = static_cast<int64_t>(body.graph->outputs().size());
  if (got >= needed) return {};
  return bad(display_name(node) + ": subgraph '" + body.attr_name + "' has " + std::to_string(got) +
             " outputs, expected at least " + std::to_string(needed));
}

Status GraphBuilder::attach_bodies(const onnx::NodeProto& node, int version, std::vector<Body> bodies, Scope& scope,
                                   std::vector<ValueId>* inputs, AttrMap* attrs) {
  SPRUN_ASSIGN(const size_t formal, formal_inputs(node, version, bodies, inputs, attrs));
  std::vector<ValueId> captured;
  for (const Body& body : bodies) {
    if (body.graph->inputs().size() != formal) {
      return bad(display_name(node) + ": subgraph '" + body.attr_name + "' has " +
                 std::to_string(body.graph->inputs().size()) + " inputs, expected " + std::to_string(formal));
    }
    SPRUN_TRY(check_body_outputs(node, body, *attrs));
    for (const Scope::Capture& capture : body.captures) {
      if (std::find(captured.begin(), captured.end(), capture.outer) == captured.end()) {
        captured.push_back(capture.outer);
      }
    }
  }
  for (Body& body : bodies) {
    for (ValueId outer : captured) {
      const auto it = std::find_if(body.captures.begin(), body.captures.end(),
                                   [&](const Scope::Capture& capture) { return capture.outer == outer; });
      // A body that does not use what its sibling captured gets an input that nobody reads.
      const ValueId inner = it != body.captures.end() ? it->inner : body.graph->add_value(body.graph->unique_name(
                                                                        scope.graph().value(outer).name));
      body.graph->add_existing_input(inner);
    }
    attrs->set(body.attr_name, std::shared_ptr<const Graph>(std::move(body.graph)));
  }
  inputs->insert(inputs->end(), captured.begin(), captured.end());
  attrs->set("num_captures", static_cast<int64_t>(captured.size()));
  return {};
}

// --- functions

Status GraphBuilder::inline_call(const onnx::NodeProto& node, const Function& function, int index, Scope& scope) {
  SPRUN_TRY(check_depth(scope, &node));
  for (const Call* call = scope.call; call != nullptr; call = call->outer) {
    if (call->function == &function) return bad("function '" + function.name + "' calls itself");
  }
  inlined_bytes_ += function.size_bytes + kBytesPerCall;
  if (inlined_bytes_ > kMaxInlinedBytes) {
    return {Code::kResourceLimit, "inlining the functions of the model makes it too large"};
  }
  const onnx::FunctionProto& proto = *function.proto;
  if (node.input_size() > proto.input_size() || node.output_size() > proto.output_size()) {
    return bad(display_name(node) + " has " + std::to_string(node.input_size()) + " inputs and " +
               std::to_string(node.output_size()) + " outputs, function '" + function.name + "' has " +
               std::to_string(proto.input_size()) + " and " + std::to_string(proto.output_size()));
  }
  const Call call{&node, &function, scope.call};
  const std::string call_name = node.name().empty() ? node.op_type() + "_" + std::to_string(index) : node.name();
  Scope body{.state = scope.state, .call = &call, .opsets = &function.opsets, .prefix = scope.prefix + call_name + "/",
             .depth = scope.depth + 1};
  SPRUN_ASSIGN(std::vector<ValueId> inputs, resolve_inputs(node, scope));
  inputs.resize(static_cast<size_t>(proto.input_size()), kNoValue);
  for (int i = 0; i < proto.input_size(); ++i) {
    if (!body.names.emplace(proto.input(i), inputs[static_cast<size_t>(i)]).second) {
      return bad("function '" + function.name + "' has input '" + proto.input(i) + "' twice");
    }
  }
  return inline_body(node, function, scope, body);
}

// Outputs of the call exist already: they stand in for the body's values of that name.
Status GraphBuilder::inline_body(const onnx::NodeProto& node, const Function& function, Scope& scope, Scope& body) {
  const onnx::FunctionProto& proto = *function.proto;
  std::map<std::string, ValueId> wanted;
  for (int i = 0; i < node.output_size(); ++i) {
    if (!node.output(i).empty()) wanted.emplace(proto.output(i), scope.names.at(node.output(i)));
  }
  body.preset = &wanted;
  auto status = build_function_nodes(proto, body);
  if (!status.ok()) return status.with_context("function '" + function.name + "'");
  for (int i = 0; i < node.output_size(); ++i) {
    if (node.output(i).empty()) continue;
    const ValueId target = scope.names.at(node.output(i));
    ValueId value = kNoValue;
    if (!body.lookup(proto.output(i), &value) || value == kNoValue) {
      return bad("function '" + function.name + "': output '" + proto.output(i) + "' is not computed by any node");
    }
    if (value != target) SPRUN_TRY(add_identity(value, target, body));
  }
  return {};
}

Status GraphBuilder::build_function_nodes(const onnx::FunctionProto& proto, Scope& body) {
  for (const onnx::NodeProto& node : proto.node()) SPRUN_TRY(declare_outputs(node, body));
  for (int i = 0; i < proto.node_size(); ++i) SPRUN_TRY(build_node(proto.node(i), i, body));
  return {};
}

// For outputs of a function that are an input of it, or that two outputs share.
Status GraphBuilder::add_identity(ValueId from, ValueId to, Scope& scope) {
  const auto opset = model_.opsets.find("");
  const int version = opset == model_.opsets.end() ? kNewestOpset : opset->second;
  const NodeId id = scope.graph().add_node_with_outputs("", "Identity", version, {from}, {to});
  Node& built = scope.graph().node(id);
  built.name = scope.graph().value(to).name;
  built.def = find_op("", "Identity", version);
  if (built.def == nullptr) note_unsupported(built, "");
  return {};
}

}  // namespace sprun::graph
