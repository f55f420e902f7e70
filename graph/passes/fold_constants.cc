// Shape inference and constant folding in one walk: the shapes of a node may come from constants that folding the
// nodes before it has just produced (Shape -> Gather -> Concat -> Reshape chains).
#include <algorithm>

#include "graph/ops/evaluate.h"
#include "graph/passes/pass.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {

namespace {

bool may_fold(const Node& node, std::span<const ConstTensorView> inputs) {
  const uint32_t flags = node.def->flags;
  if (flags & (kRandom | kSubgraphs)) return false;
  if (flags & kShapeOnly) return true;
  // Quantised weights stay as they are until the passes for integer layers have seen them.
  if (node.op_type == "DequantizeLinear" && !inputs.empty() && inputs[0].shape.rank() >= 2) return false;
  return std::all_of(inputs.begin(), inputs.end(), [](const ConstTensorView& in) {
    return in.dtype == DType::kUndefined || in.data != nullptr;
  });
}

// Constants that lie unaligned inside a mapped file are copied before an op may read them as typed arrays.
Result<std::vector<Tensor>> align(std::vector<ConstTensorView>& inputs, const Graph& graph, const Node& node) {
  std::vector<Tensor> copies;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor* constant = graph.constant(node.inputs[i]);
    if (constant == nullptr || constant->is_aligned()) continue;
    SPRUN_ASSIGN(Tensor copy, Tensor::copy_of(constant->view()));
    inputs[i] = copy.view();
    copies.push_back(std::move(copy));
  }
  return copies;
}

int64_t output_bytes(std::span<const InferContext::Output> outputs) {
  int64_t total = 0;
  for (const auto& output : outputs) {
    if (output.set) total += output.shape.num_elements() * dtype_size(output.dtype);
  }
  return total;
}

struct Folder {
  Graph& graph;
  PassContext& ctx;
  int rewrites = 0;

  Status visit(NodeId n) {
    const Node& node = graph.node(n);
    auto inputs = known_inputs(graph, node);
    if (!inputs) return {};
    bool complete = false;
    SPRUN_ASSIGN(const std::vector<InferContext::Output> outputs, infer_outputs(node, *inputs, &complete));
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (node.outputs[i] == kNoValue || !outputs[i].set) continue;
      graph.value(node.outputs[i]).dtype = outputs[i].dtype;
      graph.value(node.outputs[i]).shape = outputs[i].shape;
    }
    const bool dynamic = (node.def->flags & kDynamicOutput) != 0;
    if ((!complete && !dynamic) || !may_fold(node, *inputs)) return {};
    if (output_bytes(outputs) > ctx.max_folded_bytes) return {};
    return fold(n, *inputs);
  }

  Status fold(NodeId n, std::vector<ConstTensorView>& inputs) {
    const Node& node = graph.node(n);
    SPRUN_ASSIGN(const std::vector<Tensor> keep, align(inputs, graph, node));
    auto results = evaluate(node, inputs, {.pool = ctx.pool});
    // A value that is wrong only at run time (an index out of range behind an If) must not refuse the model now.
    if (!results.ok()) return results.status().code() == Code::kBadInput ? Status() : results.status();
    const std::vector<ValueId> outputs = node.outputs;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i] != kNoValue) graph.make_constant(outputs[i], std::move((*results)[i]));
    }
    graph.remove_node(n);
    ++rewrites;
    return {};
  }
};

}  // namespace

Result<int> pass_fold_constants(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  Folder folder{graph, ctx};
  for (NodeId n : order) SPRUN_TRY(folder.visit(n));
  return folder.rewrites;
}

}  // namespace sprun::graph
