#include "tools/compress/stream_norms.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "graph/passes/pass.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

// The type of a node's result as far as casts of activations need it: most nodes keep that of an
// input.
DType result_type(const Graph& graph, const Node& node) {
  constexpr std::array kIntegers = {"Shape", "Size", "NonZero", "ArgMax", "ArgMin"};
  if (node.is("Cast")) return static_cast<DType>(node.attrs.get_int("to", 0));
  if (std::any_of(kIntegers.begin(), kIntegers.end(), [&](const char* op) { return node.is(op); }))
    return DType::kS64;
  constexpr std::array kUnknown = {"QuantizeLinear", "DequantizeLinear", "ConstantOfShape", "Equal",
                                   "Less",           "Greater"};
  if (std::any_of(kUnknown.begin(), kUnknown.end(), [&](const char* op) { return node.is(op); }))
    return DType::kUndefined;
  const ValueId from = node.input(node.is("Where") ? 1 : 0);
  return from == kNoValue ? DType::kUndefined : graph.value(from).dtype;
}

Status fill_types(Graph& graph) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  for (NodeId n : order) {
    const DType type = result_type(graph, graph.node(n));
    const ValueId out = graph.node(n).output(0);
    if (out != kNoValue && graph.value(out).dtype == DType::kUndefined)
      graph.value(out).dtype = type;
  }
  return {};
}

}  // namespace

Result<Graph> plain_form(const Graph& graph) {
  Graph plain = graph;
  SPRUN_TRY(fill_types(plain));
  graph::PassContext context;
  for (std::string_view name : {"remove_identities", "fuse_layer_norm", "fuse_rms_norm"}) {
    const auto passes = graph::pass_table();
    const auto pass = std::find_if(passes.begin(), passes.end(),
                                   [&](const auto& info) { return info.name == name; });
    if (pass == passes.end()) return Status(Code::kInternal, "no pass " + std::string(name));
    SPRUN_TRY(pass->run(plain, context).status());
  }
  return plain;
}

Result<std::vector<FoundNorm>> find_norms(const Graph& plain) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, plain.topological_order());
  std::vector<FoundNorm> norms;
  for (NodeId n : order) {
    const Node& node = plain.node(n);
    const bool rms =
        node.op_type == "RMSNormalization" || node.op_type == "SimplifiedLayerNormalization";
    if (!rms && node.op_type != "LayerNormalization") continue;
    const Tensor* gamma = plain.constant(node.input(1));
    if (node.attrs.get_int("axis", -1) != -1 || gamma == nullptr || gamma->shape().rank() != 1)
      continue;
    norms.push_back({n, !rms});
  }
  return norms;
}

}  // namespace sprun::compress
