// Checks that a graph keeps its own rules; run after every pass.
#pragma once

#include "graph/ir/graph.h"

namespace sprun::graph {

// Every value a live node reads is an input, a constant or made by a live node; producers and use lists agree with the
// nodes; graph outputs exist; no cycle. kInternal naming the value or node otherwise.
Status verify(const Graph& graph);

}  // namespace sprun::graph
