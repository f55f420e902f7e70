// Rotary embedding spelled out, x * cos + Concat(-second half, first half) * sin, becomes one sprun.RotateHalf. The
// halves are two Slices of x or one Split. Plan stage: whether the tables fit depends on shapes.
#include <algorithm>
#include <optional>

#include "graph/ir/pattern.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

struct Half {
  ValueId of = kNoValue;
  bool second = false;
};

bool is_last_axis(int64_t axis, const Shape& shape) { return axis == -1 || axis == shape.rank() - 1; }

std::optional<int64_t> one_int(const Graph& graph, ValueId v) {
  const auto values = int_constant(graph, v);
  return values && values->size() == 1 ? std::optional<int64_t>((*values)[0]) : std::nullopt;
}

std::optional<Half> match_slice(const Graph& graph, const Node& node, const Shape& shape) {
  const auto begin = one_int(graph, node.input(1)), end = one_int(graph, node.input(2));
  const auto axis = one_int(graph, node.input(3)), step = one_int(graph, node.input(4));
  const bool by_one = node.input(4) == kNoValue || step == 1;
  if (!begin || !end || !axis || !by_one || !is_last_axis(*axis, shape)) return std::nullopt;
  const int64_t size = shape.back(), half = size / 2;
  const int64_t from = *begin < 0 ? *begin + size : *begin;
  const int64_t to = std::min(*end < 0 ? *end + size : *end, size);
  if (from == 0 && to == half) return Half{node.inputs[0], false};
  return from == half && to == size ? std::optional<Half>({node.inputs[0], true}) : std::nullopt;
}

// Which half of what v is.
std::optional<Half> match_half(const Graph& graph, ValueId v) {
  const Node* node = graph.producer(v);
  if (node == nullptr || !node->domain.empty() || node->input(0) == kNoValue) return std::nullopt;
  const auto& shape = graph.value(node->inputs[0]).shape;
  if (!shape || shape->rank() < 1 || shape->back() % 2 != 0) return std::nullopt;
  if (node->is("Slice")) return match_slice(graph, *node, *shape);
  const auto& part = graph.value(v).shape;
  if (!node->is("Split") || node->outputs.size() != 2 || !part) return std::nullopt;
  if (part->back() != shape->back() / 2) return std::nullopt;
  if (!is_last_axis(node->attrs.get_int("axis", 0), *shape)) return std::nullopt;
  return Half{node->inputs[0], node->outputs[1] == v};
}

// x if v = Concat(-second half of x, first half of x).
ValueId match_turned(const Graph& graph, ValueId v) {
  const Node* concat = producer_is(graph, v, "Concat");
  const auto& shape = graph.value(v).shape;
  if (concat == nullptr || concat->inputs.size() != 2 || !shape) return kNoValue;
  if (!is_last_axis(concat->attrs.get_int("axis", 0), *shape)) return kNoValue;
  const Node* negative = producer_is(graph, concat->inputs[0], "Neg");
  if (negative == nullptr) return kNoValue;
  const auto second = match_half(graph, negative->inputs[0]), first = match_half(graph, concat->inputs[1]);
  const bool whole = second && first && second->second && !first->second && second->of == first->of;
  return whole ? first->of : kNoValue;
}

// The table fits x without growing it.
bool fits(const Graph& graph, ValueId table, const Shape& x) {
  const Value& value = graph.value(table);
  if (value.dtype != DType::kF32 || !value.shape) return false;
  const Shape& shape = *value.shape;
  if (shape.rank() < 1 || shape.rank() > x.rank()) return false;
  for (int i = 1; i < shape.rank(); ++i) {
    const int64_t size = shape[shape.rank() - 1 - i];
    if (size != 1 && size != x[x.rank() - 1 - i]) return false;
  }
  return shape.back() == x.back();
}

struct Match {
  ValueId x = kNoValue, cos = kNoValue, sin = kNoValue;
};

std::optional<Match> match_rotary(const Graph& graph, const Node& add) {
  if (!add.is("Add") || add.inputs.size() != 2) return std::nullopt;
  for (size_t side = 0; side < 2; ++side) {
    const Node* straight = producer_is(graph, add.inputs[side], "Mul");
    const Node* turned = producer_is(graph, add.inputs[1 - side], "Mul");
    if (straight == nullptr || turned == nullptr) continue;
    Match match;
    const ValueId half = pick_input(
        *turned, [&](ValueId v) { return match_turned(graph, v) != kNoValue; }, &match.sin);
    if (half == kNoValue) continue;
    match.x = match_turned(graph, half);
    match.cos = other_input(*straight, match.x);
    const Value& x = graph.value(match.x);
    if (match.cos == kNoValue || x.dtype != DType::kF32 || !x.shape) continue;
    if (fits(graph, match.cos, *x.shape) && fits(graph, match.sin, *x.shape)) return match;
  }
  return std::nullopt;
}

}  // namespace

Result<int> pass_fuse_rotary(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    if (graph.node(n).dead) continue;
    const auto match = match_rotary(graph, graph.node(n));
    if (!match) continue;
    take_over(graph, graph.node(n).outputs[0], "sprun", "RotateHalf", 1, {match->x, match->cos, match->sin});
    ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
