// Attention over [past keys; new keys] becomes attention over a cache that the session owns:
//
//   K = Concat(past_k, k), V = Concat(past_v, v), sprun.Attention(q, K, V, mask)   ->
//   sprun.CachedAttention(q, k, v, cache_k, cache_v, position)
//
// The new op stores k and v behind the tokens the cache holds and attends to all of them, so nothing is copied from step to
// step and no shape depends on the number of tokens. That is the same only if the mask hides just what lies after a
// token, or also what lies before a window, or adds a slope times the distance (ALiBi): it is a constant here, and its elements
// are looked at (causal_mask.h). Plan stage, and only when PassContext::kv_cache is set.
#include <map>
#include <optional>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/causal_mask.h"
#include "graph/passes/kv_cache.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

using Slot = KvCacheSpec::Slot;

bool is_permutation(const Node& node, std::initializer_list<int64_t> perm) {
  return node.attrs.get_ints("perm") == std::vector<int64_t>(perm);
}

// Which part of a leading axis of two `node` cuts out as its output v; -1 if it does something else.
int leading_part(const Graph& graph, const Node& node, ValueId v) {
  if (node.is("Gather") && node.attrs.get_int("axis", 0) == 0) {
    const auto index = scalar_constant(graph, node.inputs[1]);
    return index && (*index == 0 || *index == 1) ? static_cast<int>(*index) : -1;
  }
  if (node.is("Split") && node.attrs.get_int("axis", 0) == 0 && node.outputs.size() == 2) {
    return node.outputs[0] == v ? 0 : 1;
  }
  if (!node.is("Slice") || node.inputs.size() < 3) return -1;
  const auto start = scalar_constant(graph, node.inputs[1]);
  const auto axis = node.input(3) == kNoValue ? std::optional<double>(0.0) : scalar_constant(graph, node.inputs[3]);
  const bool one = graph.value(v).shape && graph.value(v).shape->rank() == 5 && (*graph.value(v).shape)[0] == 1;
  return one && start && axis && *axis == 0 && (*start == 0 || *start == 1) ? static_cast<int>(*start) : -1;
}

// The transpose from [1, heads, tokens, dim] to a layout.
bool leads_to(const Node& transpose, std::string_view layout) {
  return layout == "bhds" ? is_permutation(transpose, {0, 1, 3, 2})
                          : layout == "bshd" && is_permutation(transpose, {0, 2, 1, 3});
}

// Follows v, the past as the graph concatenates it in `layout`, back to a state input.
const Slot* find_slot(const Graph& graph, ValueId v, std::string_view layout, const KvCacheSpec& spec) {
  int part = -1;
  for (int depth = 0; depth < 8; ++depth) {
    for (const Slot& slot : spec.slots) {
      if (slot.past == v && slot.part == part) return &slot;
    }
    const Node* node = graph.producer(v);
    if (node == nullptr || !node->domain.empty()) return nullptr;
    if (const int cut = leading_part(graph, *node, v); cut >= 0) {
      if (part >= 0) return nullptr;
      part = cut;
    } else if (node->is("Transpose")) {
      if (!leads_to(*node, layout)) return nullptr;
      layout = "bhsd";  // a second one would lead back
    } else if (!node->is("Squeeze") && !node->is("Reshape") && !node->is("Identity")) {
      return nullptr;
    }
    v = node->inputs[0];
  }
  return nullptr;
}

// Axis of the tokens in a layout of sprun.Attention with four axes.
int token_axis(std::string_view layout) { return layout == "bhsd" ? 2 : layout == "bhds" ? 3 : 1; }

// The shape that a state has in `layout`, with `tokens` in it.
Shape shape_in(std::string_view layout, int64_t heads, int64_t tokens, int64_t dim) {
  if (layout == "bhsd") return {1, heads, tokens, dim};
  return layout == "bhds" ? Shape{1, heads, dim, tokens} : Shape{1, tokens, heads, dim};
}

struct NewRows {
  ValueId value = kNoValue;
  std::string layout;
  const Slot* slot = nullptr;
};

// Reads K or V of an attention node, in `layout`, as Concat(past, new rows).
std::optional<NewRows> split_operand(const Graph& graph, ValueId v, const std::string& layout, int64_t heads, int64_t dim,
                                     const KvCacheSpec& spec) {
  const Node* concat = producer_is(graph, v, "Concat");
  if (concat == nullptr || concat->inputs.size() != 2 || !graph.value(v).shape) return std::nullopt;
  const Shape& all = *graph.value(v).shape;
  const int axis = token_axis(layout);
  if (all.rank() != 4 || (concat->attrs.get_int("axis", 0) + 4) % 4 != axis) return std::nullopt;
  const auto& past_shape = graph.value(concat->inputs[0]).shape;
  if (!past_shape || *past_shape != shape_in(layout, heads, spec.past, dim)) return std::nullopt;
  NewRows rows{concat->inputs[1], layout, find_slot(graph, concat->inputs[0], layout, spec)};
  if (rows.slot == nullptr) return std::nullopt;
  const Node* transpose = producer_is(graph, rows.value, "Transpose");
  const bool from_rows = transpose && (rows.layout == "bhsd" ? is_permutation(*transpose, {0, 2, 1, 3})
                                                             : is_permutation(*transpose, {0, 2, 3, 1}));
  if (from_rows && rows.layout != "bshd") {
    rows.value = transpose->inputs[0];
    rows.layout = "bshd";
  } else if (rows.layout == "bhds" && transpose && is_permutation(*transpose, {0, 1, 3, 2})) {
    rows.value = transpose->inputs[0];
    rows.layout = "bhsd";
  }
  return rows;
}

// Why the mask of an attention node is not causality alone, perhaps with a window and ALiBi; empty if it is.
std::string check_mask(const Graph& graph, const Node& node, const KvCacheSpec& spec, int64_t tokens, CausalMask* mask) {
  if (node.input(4) != kNoValue) return "has lengths of keys that are known only when running";
  const bool causal = node.attrs.get_int("causal", 0) != 0 && node.attrs.get_int("causal_offset", spec.past) == spec.past;
  const int64_t window = node.attrs.get_int("left_window", -1);
  if (node.input(3) != kNoValue) {
    const auto read = read_causal_mask(graph, node.inputs[3], spec.past, tokens, node.attrs.get_int("num_heads", 0));
    if (!read) return "has a mask that is not just causal, or depends on the token ids";
    *mask = *read;
  }
  if (window >= 0) mask->window = window;
  if (tokens == 1 || causal || mask->causal) return "";
  return "has no mask, so that tokens see those after them";
}

// The number of new tokens, from the shape of Q.
int64_t count_tokens(const Graph& graph, const Node& node) {
  const auto& shape = graph.value(node.inputs[0]).shape;
  if (!shape) return -1;
  if (shape->rank() == 3) return (*shape)[1];
  return (*shape)[token_axis(node.attrs.get_string("q_layout", "bshd"))];
}

std::string layout_of(const Node& node, const char* name) { return std::string(node.attrs.get_string(name, "bshd")); }

// Tables of ALiBi that layers share, by slopes.
using BiasTables = std::map<std::vector<float>, ValueId>;

// slope * distance by head and distance: the last `tokens` - 1 columns are of keys that nobody sees.
Result<ValueId> bias_table(Graph& graph, const std::vector<float>& slopes, int64_t capacity, int64_t tokens,
                           BiasTables& tables) {
  if (const auto found = tables.find(slopes); found != tables.end()) return found->second;
  const int64_t width = capacity + tokens - 1;
  SPRUN_ASSIGN(Tensor table, Tensor::allocate(DType::kF32, Shape{static_cast<int64_t>(slopes.size()), width}));
  auto* to = table.mutable_view().as<float>();
  for (const float slope : slopes) {
    for (int64_t c = 0; c < width; ++c) *to++ = slope * static_cast<float>(c - (capacity - 1));
  }
  const ValueId v = graph.add_constant(graph.unique_name("cache/bias"), std::move(table));
  return tables[slopes] = v;
}

std::string rewrite(Graph& graph, NodeId n, const KvCacheSpec& spec, BiasTables& tables) {
  const Node& node = graph.node(n);
  const int64_t heads = node.attrs.get_int("kv_num_heads", node.attrs.get_int("num_heads", 0));
  const int64_t dim = node.attrs.get_int("head_dim", 0), v_dim = node.attrs.get_int("v_head_dim", dim);
  const auto k = split_operand(graph, node.inputs[1], layout_of(node, "k_layout"), heads, dim, spec);
  const auto v = split_operand(graph, node.inputs[2], layout_of(node, "v_layout"), heads, v_dim, spec);
  if (!k || !v) return "does not read Concat(past, new) for keys and values";
  if (k->layout == "bhds") return "gets its new keys as columns";
  const int64_t tokens = count_tokens(graph, node);
  CausalMask mask;
  if (std::string reason = check_mask(graph, node, spec, tokens, &mask); !reason.empty()) return reason;
  const AttrMap attrs = node.attrs;
  std::vector<ValueId> inputs = {node.inputs[0], k->value, v->value, k->slot->cache, v->slot->cache, spec.position};
  if (k->slot->scales != kNoValue) inputs.insert(inputs.end(), {k->slot->scales, v->slot->scales});
  const ValueId output = node.outputs[0];
  if (!mask.slopes.empty()) {
    inputs.resize(8, kNoValue);
    const auto table = bias_table(graph, mask.slopes, (*graph.value(k->slot->cache).shape)[1], tokens, tables);
    if (!table.ok()) return "gets no memory";
    inputs.push_back(*table);
  }
  const NodeId made = take_over(graph, output, "sprun", "CachedAttention", 1, std::move(inputs));
  AttrMap& made_attrs = graph.node(made).attrs;
  for (const auto& [name, value] : attrs.items()) {
    if (name != "causal" && name != "causal_offset") made_attrs.set(name, value);
  }
  made_attrs.set("k_layout", k->layout);
  made_attrs.set("v_layout", v->layout);
  made_attrs.set("left_window", mask.window);
  return "";
}

}  // namespace

Result<int> pass_cache_attention(Graph& graph, PassContext& ctx) {
  if (ctx.kv_cache == nullptr) return 0;
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  BiasTables tables;
  int made = 0;
  for (NodeId n : order) {
    if (graph.node(n).dead || !graph.node(n).is("sprun", "Attention")) continue;
    const std::string name = graph.node(n).name;
    const std::string reason = rewrite(graph, n, *ctx.kv_cache, tables);
    if (reason.empty()) ++made;
    else ctx.note("cache_attention: '" + name + "' " + reason);
  }
  return made;
}

}  // namespace sprun::graph
