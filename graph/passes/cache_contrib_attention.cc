// com.microsoft GroupQueryAttention and Attention with a past become sprun.CachedAttention over the cache of a session, as
// pass_cache_attention does for attention spelled out. Before the passes for linear layers, because Attention holds one:
//
//   GroupQueryAttention(q, k, v, past_k, past_v, ..., cos, sin)  ->  RotaryEmbedding of q and of k, CachedAttention
//   Attention(x, W, b, mask, past)                               ->  MatMul, Add, CachedAttention on columns of the sum
//
// Lengths and masks of these nodes are those of a text without padding, which is all that a session generates. Plan stage,
// and only when PassContext::kv_cache is set.
#include <algorithm>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/kv_cache.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

using Slot = KvCacheSpec::Slot;

const Slot* slot_of(const KvCacheSpec& spec, ValueId past, int part) {
  const auto found = std::find_if(spec.slots.begin(), spec.slots.end(),
                                  [&](const Slot& slot) { return slot.past == past && slot.part == part; });
  return found == spec.slots.end() ? nullptr : &*found;
}

ValueId add_op(Graph& graph, const char* domain, const char* op, int version, std::vector<ValueId> inputs,
               const std::string& name, const Shape& shape) {
  const NodeId n = graph.add_node(domain, op, version, std::move(inputs), {graph.unique_name(name)});
  graph.node(n).name = name;
  graph.node(n).def = find_op(domain, op, version);
  graph.value(graph.node(n).outputs[0]).dtype = DType::kF32;
  graph.value(graph.node(n).outputs[0]).shape = shape;
  return graph.node(n).outputs[0];
}

// The parts of the new node that both kinds share.
struct Heads {
  ValueId q = kNoValue, k = kNoValue, v = kNoValue;
  int64_t q_offset = 0, k_offset = 0, v_offset = 0;
  int64_t heads = 0, kv_heads = 0, dim = 0, v_dim = 0;
  const Slot *key = nullptr, *value = nullptr;
};

void make_cached(Graph& graph, NodeId n, const Heads& h, const KvCacheSpec& spec) {
  const AttrMap attrs = graph.node(n).attrs;
  std::vector<ValueId> inputs = {h.q, h.k, h.v, h.key->cache, h.value->cache, spec.position};
  if (h.key->scales != kNoValue) inputs.insert(inputs.end(), {h.key->scales, h.value->scales});
  const NodeId made = take_over(graph, graph.node(n).outputs[0], "sprun", "CachedAttention", 1, std::move(inputs));
  AttrMap& to = graph.node(made).attrs;
  to.set("num_heads", h.heads);
  to.set("kv_num_heads", h.kv_heads);
  to.set("head_dim", h.dim);
  to.set("v_head_dim", h.v_dim);
  if (const float scale = attrs.get_float("scale", 0.0F); scale != 0.0F) to.set("scale", scale);
  to.set("softcap", attrs.get_float("softcap", 0.0F));
  to.set("q_offset", h.q_offset);
  to.set("k_offset", h.k_offset);
  to.set("v_offset", h.v_offset);
  // A window of n tokens counts the token itself.
  const int64_t window = attrs.get_int("local_window_size", -1);
  to.set("left_window", window > 0 ? window - 1 : int64_t{-1});
}

const Shape* shape_of(const Graph& graph, ValueId v) {
  return v != kNoValue && graph.value(v).shape && graph.value(v).dtype == DType::kF32 ? &*graph.value(v).shape : nullptr;
}

ValueId rotate(Graph& graph, ValueId x, int64_t heads, const Node& gqa, const KvCacheSpec& spec, const std::string& name) {
  const Shape shape = *graph.value(x).shape, table = *graph.value(gqa.inputs[7]).shape;
  const int64_t interleaved = gqa.attrs.get_int("rotary_interleaved", 0);
  const ValueId y = add_op(graph, "com.microsoft", "RotaryEmbedding", 1,
                           {x, spec.positions, gqa.inputs[7], gqa.inputs[8]}, name, shape);
  AttrMap& attrs = graph.node(graph.value(y).producer).attrs;
  attrs.set("num_heads", heads);
  attrs.set("interleaved", interleaved);
  if (2 * table.back() != shape[2] / heads) attrs.set("rotary_embedding_dim", 2 * table.back());
  return y;
}

std::string rewrite_group_query(Graph& graph, NodeId n, const KvCacheSpec& spec) {
  const Node node = graph.node(n);  // adding nodes moves the storage
  Heads h;
  h.key = slot_of(spec, node.input(3), -1), h.value = slot_of(spec, node.input(4), -1);
  const Shape* q = shape_of(graph, node.inputs[0]);
  if (!h.key || !h.value || !q || q->rank() != 3) return "does not read keys and values of the past";
  for (size_t i = 9; i < node.inputs.size(); ++i) {
    if (node.inputs[i] != kNoValue) return "has input " + std::to_string(i) + ", which the cache does not take";
  }
  if (node.attrs.get_int("smooth_softmax", 0) > 0) return "has smooth_softmax";
  h.heads = node.attrs.get_int("num_heads", 0), h.kv_heads = node.attrs.get_int("kv_num_heads", 0);
  if (h.heads < 1 || h.kv_heads < 1) return "does not say its heads";
  const bool packed = node.input(1) == kNoValue;
  h.dim = h.v_dim = (*q)[2] / (packed ? h.heads + 2 * h.kv_heads : h.heads);
  h.q = node.inputs[0], h.k = node.input(1), h.v = node.input(2);
  const std::string name = node.name.empty() ? node.op_type : node.name;
  if (packed) {
    const ValueId all = h.q;
    const int64_t k_begin = h.heads * h.dim, v_begin = (h.heads + h.kv_heads) * h.dim;
    const auto q_part = add_slice(graph, all, 2, 0, k_begin, name + "/q");
    const auto k_part = add_slice(graph, all, 2, k_begin, v_begin, name + "/k");
    if (!q_part.ok() || !k_part.ok()) return "gets no memory";
    h.q = *q_part;
    h.k = *k_part;
    h.v = all;
    h.v_offset = v_begin;
  }
  if (node.attrs.get_int("do_rotary", 0) != 0) {
    if (node.input(7) == kNoValue || node.input(8) == kNoValue || !graph.value(node.inputs[7]).shape) {
      return "rotates without tables";
    }
    h.q = rotate(graph, h.q, h.heads, node, spec, name + "/rotated_q");
    h.k = rotate(graph, h.k, h.kv_heads, node, spec, name + "/rotated_k");
  }
  make_cached(graph, n, h, spec);
  return "";
}

std::string rewrite_attention(Graph& graph, NodeId n, const KvCacheSpec& spec) {
  const Node node = graph.node(n);
  Heads h;
  h.key = slot_of(spec, node.input(4), 0), h.value = slot_of(spec, node.input(4), 1);
  const Shape *x = shape_of(graph, node.inputs[0]), *w = shape_of(graph, node.inputs[1]);
  if (!h.key || !h.value || !x || !w || x->rank() != 3 || w->rank() != 2) return "does not read keys and values of the past";
  if (node.attrs.get_int("unidirectional", 0) == 0) return "lets tokens see those after them";
  if (node.attrs.get_int("do_rotary", 0) != 0 || node.input(5) != kNoValue || node.input(6) != kNoValue ||
      !node.attrs.get_ints("qkv_hidden_sizes").empty()) {
    return "has attributes or inputs that the cache does not take";
  }
  h.heads = h.kv_heads = node.attrs.get_int("num_heads", 0);
  const int64_t hidden = (*w)[1] / 3;
  if (h.heads < 1 || hidden % h.heads != 0) return "does not say its heads";
  h.dim = h.v_dim = hidden / h.heads;
  const Shape packed{(*x)[0], (*x)[1], (*w)[1]};
  const std::string name = node.name.empty() ? node.op_type : node.name;
  ValueId all = add_op(graph, "", "MatMul", 13, {node.inputs[0], node.inputs[1]}, name + "/qkv", packed);
  if (node.input(2) != kNoValue) all = add_op(graph, "", "Add", 14, {all, node.inputs[2]}, name + "/bias", packed);
  h.q = h.k = h.v = all;
  h.k_offset = hidden, h.v_offset = 2 * hidden;
  make_cached(graph, n, h, spec);
  return "";
}

}  // namespace

Result<int> pass_cache_contrib_attention(Graph& graph, PassContext& ctx) {
  if (ctx.kv_cache == nullptr) return 0;
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int made = 0;
  for (NodeId n : order) {
    const bool grouped = graph.node(n).is("com.microsoft", "GroupQueryAttention");
    if (graph.node(n).dead || (!grouped && !graph.node(n).is("com.microsoft", "Attention"))) continue;
    const std::string name = graph.node(n).name;
    const std::string reason = grouped ? rewrite_group_query(graph, n, *ctx.kv_cache)
                                       : rewrite_attention(graph, n, *ctx.kv_cache);
    if (reason.empty()) ++made;
    else ctx.note("cache_attention: '" + name + "' " + reason);
  }
  return made;
}

}  // namespace sprun::graph
