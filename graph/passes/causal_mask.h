// What a constant mask of attention says about new tokens that follow a past.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "graph/ir/graph.h"

namespace sprun::graph {

struct CausalMask {
  bool causal = false;        // hides what comes after a token
  int64_t window = -1;        // each token sees so many before it and itself; -1: all
  std::vector<float> slopes;  // by head: slope * distance is added to a score (ALiBi); empty: nothing
};

// Reads an added or bool mask that broadcasts to [1, heads, tokens, past + tokens] and is 0 or linear in the key wherever a
// token sees a key; a constant of a row changes no softmax. Sums of constants that were too large to fold are read by
// summand. nullopt if the mask says anything else, or depends on the token ids.
std::optional<CausalMask> read_causal_mask(const Graph& graph, ValueId mask, int64_t past, int64_t tokens, int64_t heads);

}  // namespace sprun::graph
