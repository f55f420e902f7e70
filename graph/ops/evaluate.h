// Applying an OpDef outside a plan: shape inference of one node, and running it on owned memory.
// Used by constant folding and by steps whose shapes are only known when running.
#pragma once

#include <span>
#include <vector>

#include "graph/ops/op.h"

namespace sprun {
class ThreadPool;
class PackedCache;
}

namespace sprun::graph {

// Views of the inputs of a node: constants with data, others with dtype and shape, absent ones undefined.
// nullopt if some input has no known dtype and shape.
std::optional<std::vector<ConstTensorView>> known_inputs(const Graph& graph, const Node& node);

// Calls infer(); checks arity, and that sizes are sane. *complete is false when some wanted output stays unknown.
Result<std::vector<InferContext::Output>> infer_outputs(const Node& node, std::span<const ConstTensorView> inputs,
                                                        bool* complete);

// Calls prepare() if there is one and run(), with outputs in fresh memory. All inputs must have data.
struct EvaluateOptions {
  ThreadPool* pool = nullptr;
  PackedCache* packed = nullptr;           // nullptr: a private one
  SubgraphRunner* subgraphs = nullptr;
  std::span<const Tensor> constants = {};  // by input; empty Tensors for what is not constant; may be empty
  SparseMode sparse = SparseMode::kAuto;
};
Result<std::vector<Tensor>> evaluate(const Node& node, std::span<const ConstTensorView> inputs,
                                     const EvaluateOptions& options);

}  // namespace sprun::graph
