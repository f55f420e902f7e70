// Computes the logits of the last token only: the head of a language model is its largest layer, and a prompt needs one row.
#pragma once

#include "graph/ir/graph.h"

namespace sprun {

// Where the single output of `graph`, [1, T, V] or [T, V] with `tokens` T, comes from layers that treat rows one by one, cuts
// the last row out of the input of the first of them. Shapes after the cut become unknown. Returns whether it did;
// kResourceLimit if memory runs out.
Result<bool> keep_last_row(graph::Graph& graph, int64_t tokens);

}  // namespace sprun
