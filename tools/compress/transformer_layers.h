// The layers of a transformer, as parts of the graph between two values of the residual stream.
#pragma once

#include <set>
#include <span>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/compress/kv_states.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/value_shapes.h"

namespace sprun::compress {

struct TransformerLayer {
  graph::ValueId in = graph::kNoValue, out = graph::kNoValue;  // of one shape; out = in of the next
  std::set<graph::NodeId> nodes;                               // what lies between
  std::vector<const LinearLayer*> linear;                      // those among them
  std::vector<KvState> states;  // keys and values that it hands from step to step
  bool makes_outputs = false;   // the model has other outputs from inside
};

// In the order in which they run. Every layer is an attention and then a feed-forward network, each added to its input, with
// norms before them or behind the sums. kBadModel naming the place where the graph is something else.
Result<std::vector<TransformerLayer>> find_transformer_layers(const graph::Graph& graph, const ValueShapes& shapes,
                                                              std::span<const LinearLayer> layers);

}  // namespace sprun::compress
