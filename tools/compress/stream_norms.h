// The norms of a graph, whatever their spelling.
#pragma once

#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"

namespace sprun::compress {

struct FoundNorm {
  graph::NodeId node = graph::kNoNode;  // in the plain form
  bool subtracts_mean = false;
};

// The graph in a form that is easy to search: without nodes that return their input (Identity,
// casts of float32 to itself), each norm a single node. Values and nodes that are left have the ids
// they have in `graph`.
Result<graph::Graph> plain_form(const graph::Graph& graph);

// The norms over the last axis in a plain form, in the order in which they run.
Result<std::vector<FoundNorm>> find_norms(const graph::Graph& plain);

}  // namespace sprun::compress
