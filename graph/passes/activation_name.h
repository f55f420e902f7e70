// What an activation node is called in the attributes of sprun.Linear and sprun.SparseFfn.
#pragma once

#include <string>

#include "graph/ir/graph.h"

namespace sprun::graph {

// "relu", "tanh", "sigmoid", "gelu_tanh", "gelu_erf", "silu" or "quick_gelu"; "" if the node is none of those.
std::string activation_name(const Node& node);

}  // namespace sprun::graph
