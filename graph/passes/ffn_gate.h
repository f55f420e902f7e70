// What makes the zeros of a feed-forward layer: everything between the gate's linear layer and the hidden values.
#pragma once

#include <optional>
#include <string>

#include "graph/passes/ffn_layer.h"

namespace sprun::graph {

struct FfnGateMatch {
  FfnLayerMatch layer;          // its activation comes before the selection
  std::string select;           // as sprun.SparseFfn has it
  const Node* selector = nullptr;  // StatTopK, Threshold or TopKSelect: the attributes; nullptr for a rectifier
  ValueId threshold = kNoValue;
  std::string activation = "none";  // after the selection
  bool square = false;
};

// Matches backwards from v; nullopt with the reason in *why when v comes from a selection, but not of a linear layer's
// result, or other nodes read what lies between. *why stays empty when there is no selection at all.
std::optional<FfnGateMatch> match_ffn_gate(const Graph& graph, ValueId v, std::string* why);

}  // namespace sprun::graph
