// Small changes of graphs that remove parts of an axis need.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "sprun/tensor.h"
#include "tools/compress/value_shapes.h"

namespace sprun::compress {

// The slices of t at `indices` of `axis`, one after the other. Any type; t may be unaligned.
Result<Tensor> take(const Tensor& t, int axis, std::span<const int64_t> indices);

// Gives input `slot` of node n, a constant, other elements: under its name if nothing else reads it.
void replace_constant_input(graph::Graph& graph, graph::NodeId n, size_t slot, Tensor tensor);

// v is a list of sizes, or one size. Returns a list that differs from it in element `index`, which is `after` where it was
// the constant `before`; made of new constants and copies of nodes, so that other readers of v see no change. Returns v
// itself where the element is 0, -1 or 1 (what Reshape and Expand leave alone) or computed from shapes, which follow by themselves.
Result<graph::ValueId> with_size(graph::Graph& graph, const ValueShapes& shapes, graph::ValueId v, int64_t index,
                                 int64_t before, int64_t after);

// The graph without these inputs, which nothing may read any more. Ids of values stay, those of nodes do not.
graph::Graph without_inputs(const graph::Graph& graph, const std::set<graph::ValueId>& gone);

// Removes nodes whose results nobody uses.
Status remove_unused(graph::Graph& graph);

// A node of ai.onnx with one result. `like`: a node whose opset it is written against.
graph::ValueId add_simple_node(graph::Graph& graph, graph::NodeId like, const std::string& op,
                               std::vector<graph::ValueId> inputs, const std::string& name);

}  // namespace sprun::compress
