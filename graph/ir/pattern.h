// Small helpers for writing pattern passes: look through producers, read scalar constants, replace a result.
//
// A fusion matches backwards from the value it replaces. Intermediate values may have other users: they simply stay
// computed, so a match never has to prove single use to be correct.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/ir/graph.h"

namespace sprun::graph {

// The node that makes v if it is ai.onnx `op`, else nullptr.
const Node* producer_is(const Graph& graph, ValueId v, std::string_view op);
// The same for a domain such as "com.microsoft" or "sprun".
const Node* producer_is(const Graph& graph, ValueId v, std::string_view domain, std::string_view op);
// The only user of v, if v has exactly one use and is not a graph output; else kNoNode.
NodeId only_user(const Graph& graph, ValueId v);

// The value of a constant with one element (any number type).
std::optional<double> scalar_constant(const Graph& graph, ValueId v);
// All elements of a small integer constant (int32, int64), at most 64.
std::optional<std::vector<int64_t>> int_constant(const Graph& graph, ValueId v);
// |a - b| <= 1e-4 * |b|: constants that exporters round to float or half.
bool nearly(double a, double b);

// For a node with two inputs, the one that is not v; kNoValue if v is neither or both.
ValueId other_input(const Node& node, ValueId v);
// For a commutative node: which of its two inputs satisfies pred (tries both); kNoValue if none. The other goes to *other.
template <class Pred>
ValueId pick_input(const Node& node, const Pred& pred, ValueId* other) {
  if (node.inputs.size() != 2) return kNoValue;
  for (size_t i = 0; i < 2; ++i) {
    if (!pred(node.inputs[i])) continue;
    *other = node.inputs[1 - i];
    return node.inputs[i];
  }
  return kNoValue;
}

// Axes of a Reduce* node, from the attribute or the constant input 1; nullopt if unknown.
std::optional<std::vector<int64_t>> reduce_axes(const Graph& graph, const Node& node);
// True if the node reduces exactly the last axis and keeps it.
bool reduces_last_axis(const Graph& graph, const Node& node);

// A new node that takes over output v from its producer: users of v see no difference. The old producer, and what only
// it needed, is removed when nothing is left of it. Resolves the op; the new node gets the old one's name.
NodeId take_over(Graph& graph, ValueId v, std::string_view domain, std::string_view op, int version,
                 std::vector<ValueId> inputs);
// x[.., begin:end, ..] along `axis` as a new value with type and shape; x has both. kResourceLimit if memory runs out.
Result<ValueId> add_slice(Graph& graph, ValueId x, int axis, int64_t begin, int64_t end, const std::string& name);
// Removes node n if nobody uses its outputs, then the producers of its inputs likewise.
void remove_if_unused(Graph& graph, NodeId n);

}  // namespace sprun::graph
