// Two layers out of one: the parts of a fused gate_up as weights of their own, so that rows of up can be read alone.
#pragma once

#include "graph/passes/ffn_layer.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

// Columns [begin, begin + width) of an axis of a constant. Memory is shared where they lie together, else copied.
Result<Tensor> tensor_columns(const Tensor& tensor, int axis, int64_t begin, int64_t width);

// The layer that computes only the outputs [column, column + width) of `layer`, with constants of its own in the graph: n is
// width, column 0. The plans of a model share them. nullopt if the constants have shapes that cannot be cut.
std::optional<FfnLayerMatch> split_layer(Graph& graph, const FfnLayerMatch& layer, PassContext& ctx);

}  // namespace sprun::graph
