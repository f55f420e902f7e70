// Adding a constant to the output of a linear layer.
#pragma once

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

// y = W x + bias becomes y = W x + bias + added, added[N] in units of the products W x of the stored weights (a factor alpha
// of the node applies to it). Changes the constant bias of Gemm or of the Add behind, else puts an Add behind the layer; all
// readers of y see the change, and its name stays.
Status add_output_bias(graph::Graph& graph, const LinearLayer& layer, const Vector& added);

}  // namespace sprun::compress
