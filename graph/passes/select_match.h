// What the passes that recognise zeros share: looking through casts, zero constants, thresholds.
#pragma once

#include <optional>
#include <string>

#include "graph/ir/graph.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

// v without casts between floating-point types around it.
ValueId skip_casts(const Graph& graph, ValueId v);
// A constant whose elements are all 0, or a ConstantOfShape of 0.
bool is_zero(const Graph& graph, ValueId v);
// The size of the last axis of v, from its shape or the weights that made it; -1 if not known.
int64_t last_size(const Graph& graph, ValueId v);
// d if v = max(d, 0), spelled Relu, Max or Clip; else kNoValue.
ValueId relu_input(const Graph& graph, ValueId v);

// x compared with a constant t: x > t, with `inclusive` x >= t; `below` turns both round.
struct Comparison {
  ValueId x = kNoValue, t = kNoValue;
  bool inclusive = false, below = false;
};
// Greater, GreaterOrEqual, Less, LessOrEqual, perhaps under Not. If `constant`, t must be a constant; else t is the
// second operand as written.
std::optional<Comparison> comparison_of(const Graph& graph, ValueId v, bool constant);
// v = y where the comparison says keep, else 0: Where(c, y, 0), Where(c', 0, y) or Mul(y, Cast(c)). The comparison is
// returned the way round that keeps, never `below`.
struct Kept {
  ValueId y = kNoValue;
  Comparison when;
};
std::optional<Kept> kept_values(const Graph& graph, ValueId v, bool constant);

// Notes at the plan stage, when everything that can be known is known.
void note_miss(PassContext& ctx, const Node& node, const std::string& pass, const std::string& why);

}  // namespace sprun::graph
