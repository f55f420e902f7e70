// Models whose files say that their activations are sparse, while the graph may not make them so.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graph/ir/graph.h"

namespace sprun {

// What explain says when the metadata names activation_sparsity_pattern with a value above 0 and the graph of a plan has
// no statistical top-k: an exporter may have left it out, and the model would compute something else than its authors
// trained. Empty otherwise.
std::string missing_sparsity_note(const std::vector<std::pair<std::string, std::string>>& metadata,
                                  const graph::Graph& graph);

}  // namespace sprun
