// Masks that a router makes: the TopK of its scores chooses blocks, everything else is zero.
#pragma once

#include <optional>

#include "graph/ir/graph.h"

namespace sprun::graph {

// The part of `mask` that is expected not to be zero (-1: not known) if a TopK makes its zeros, by OneHot, ScatterElements or
// a comparison; nullopt for any other value.
std::optional<double> routed_density(const Graph& graph, ValueId mask);

}  // namespace sprun::graph
