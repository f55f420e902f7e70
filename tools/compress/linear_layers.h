// The linear layers of a graph: products of an activation with a constant weight.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

// y[.., N] = x[.., K] W^T (+ bias): MatMul, Gemm, com.microsoft FusedMatMul and Attention.
struct LinearLayer {
  std::string name;  // of the node, or of the weight where nodes have no names
  std::string weight_name;
  std::string op;
  graph::NodeId node = graph::kNoNode;
  graph::ValueId x = graph::kNoValue;
  graph::ValueId weight = graph::kNoValue;  // the constant, behind Transpose and Identity perhaps
  int64_t n = 0, k = 0;
  bool outputs_first = false;       // the constant is [N, K], else [K, N]
  bool slot_outputs_first = false;  // the node reads its input 1 as [N, K]
  bool is_head = false;  // its result is an output of the model, a bias and reshapes aside
  std::string obstacle;  // why it cannot be compressed; empty when it can
};

// True if a name pattern (pattern.h) means this layer: by the name of the node or of the weight.
bool is_named(const LinearLayer& layer, std::string_view pattern);

// In the order in which they run. A weight that several layers share belongs to the first; the
// others have an obstacle.
Result<std::vector<LinearLayer>> find_linear_layers(const graph::Graph& graph);

// The layer as the graph has it now, if its weight has become another constant since it was found.
LinearLayer as_it_is_now(const graph::Graph& graph, LinearLayer layer);

// The weight as W[N, K]. Precondition: no obstacle.
Matrix read_weight(const graph::Graph& graph, const LinearLayer& layer);

// Replaces the weight, in its own type and layout and under its name. A constant that others read
// too stays, and the layer gets one of its own.
Status write_weight(graph::Graph& graph, LinearLayer& layer, const Matrix& w);

}  // namespace sprun::compress
