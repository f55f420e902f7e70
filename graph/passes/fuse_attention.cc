// Attention as exporters spell it becomes one sprun.Attention, which never stores the score matrix:
//   out = softmax(cap(scale * Q K^T) + mask) V,   Q [B,H,S,D], K [B,H,T,D], V [B,H,T,Dv]
// Read through on the way: the transposes from and to [B,S,H,D] (the kernel reads strides), scalar factors on Q, K or the
// scores, the soft cap c * tanh(x / c) of Gemma, an additive mask, a Where mask, and the Unsqueeze-Expand-Reshape that repeats key/value heads (GQA).
// In Q/DQ form, with Q, K, the softmax's result and V all dequantised from codes, it becomes one sprun.AttentionInt8 with
// the graph's scales, and takes in a QuantizeLinear of its result. Plan stage: shapes tell what is a head.
#include <algorithm>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/attention_heads.h"
#include "graph/passes/pass.h"
#include "graph/passes/quantize_params.h"

namespace sprun::graph {

namespace {

struct Match {
  HeadsOperand q, k, v;
  double scale = 1;
  double softcap = 0;
  int64_t head_dim = 0;
  std::vector<ValueId> masks;  // additive
};

// True if every row (last axis) of a constant condition has an element equal to `keep`.
bool every_row_keeps_one(const Graph& graph, ValueId condition, bool keep) {
  const Tensor* tensor = graph.constant(condition);
  if (tensor == nullptr || tensor->dtype() != DType::kBool || tensor->shape().rank() == 0) return false;
  const int64_t width = tensor->shape().back();
  const auto* row = tensor->as<uint8_t>();
  for (int64_t done = 0; done < tensor->num_elements(); done += width, row += width) {
    if (std::none_of(row, row + width, [&](uint8_t c) { return (c != 0) == keep; })) return false;
  }
  return width > 0;
}

// Where(c, scores, low) and Where(c, low, scores) as an additive mask: 0 where scores are kept, low elsewhere.
// Equal to the Where if low swallows every score in float (-1e8), or if exp(low) is 0 beside any usual score (-1e4) and
// no row is masked as a whole.
ValueId where_as_mask(Graph& graph, const Node& where, ValueId* scores) {
  for (const size_t low_index : {size_t{2}, size_t{1}}) {
    const auto low = scalar_constant(graph, where.input(low_index));
    if (!low || *low > -1e4) continue;
    if (*low > -1e8 && !every_row_keeps_one(graph, where.inputs[0], low_index == 2)) continue;
    *scores = where.inputs[3 - low_index];
    auto zero = Tensor::zeros(DType::kF32, Shape{});
    if (!zero.ok()) return kNoValue;
    const ValueId zero_value = graph.add_constant(where.name + "/zero", std::move(*zero));
    std::vector<ValueId> inputs = {where.inputs[0], zero_value, where.inputs[2]};
    if (low_index == 1) inputs = {where.inputs[0], where.inputs[1], zero_value};
    const std::string name = where.name;
    const Shape mask_shape = *graph.value(where.inputs[0]).shape;
    const NodeId made = graph.add_node("", "Where", where.version, inputs, {name + "/mask"});
    graph.node(made).name = name + "/mask";
    graph.node(made).def = find_op("", "Where", graph.node(made).version);
    const ValueId mask = graph.node(made).outputs[0];
    graph.value(mask).dtype = DType::kF32;
    graph.value(mask).shape = mask_shape;
    return mask;
  }
  return kNoValue;
}

bool is_mask_for(const Graph& graph, ValueId v, const Shape& scores) {
  const Shape* shape = shape_of(graph, v);
  if (shape == nullptr || graph.value(v).dtype != DType::kF32 || shape->rank() > 4) return false;
  for (int i = 0; i < shape->rank(); ++i) {
    const int64_t size = (*shape)[shape->rank() - 1 - i];
    if (size != 1 && size != scores[3 - i]) return false;
  }
  return true;
}

// From the input of Softmax back to Q and K.
std::optional<Match> match_scores(Graph& graph, ValueId v, bool in_codes, PassContext& ctx) {
  const Shape scores = *shape_of(graph, v);
  Match match;
  for (int depth = 0; depth < 7; ++depth) {
    // A factor outside a mask would scale the mask too: only passed over before any mask was met.
    if (match.masks.empty() || producer_is(graph, v, "Mul") || producer_is(graph, v, "Div")) {
      double factor = 1;
      const ValueId inner = skip_scalars(graph, v, factor);
      const bool masked_inside = producer_is(graph, inner, "Add") || producer_is(graph, inner, "Where");
      if (inner != v && masked_inside) return std::nullopt;
      match.scale *= factor;
      v = inner;
    }
    if (const Node* product = producer_is(graph, v, "MatMul")) {
      const Shape* q = shape_of(graph, product->inputs[0]);
      if (q == nullptr || q->rank() != 4) return std::nullopt;
      match.head_dim = (*q)[3];
      match.q = read_heads(graph, product->inputs[0], in_codes);
      match.k = read_transposed_heads(graph, product->inputs[1], in_codes);
      match.scale *= match.q.factor * match.k.factor;
      return match;
    }
    ValueId next = kNoValue;
    if (const Node* tanh = producer_is(graph, v, "Tanh")) {
      // o * tanh(f * Q K^T) is the cap at o of (o * f) * Q K^T.
      if (match.softcap != 0 || match.scale <= 0) return std::nullopt;
      match.softcap = match.scale;
      next = tanh->inputs[0];
    } else if (match.softcap != 0 && !producer_is(graph, v, "Mul") && !producer_is(graph, v, "Div")) {
      return std::nullopt;  // a mask inside the cap
    } else if (const Node* add = producer_is(graph, v, "Add")) {
      // The mask is the summand that does not lead to the product; a full-size one can be either.
      const auto leads_on = [&](ValueId i) {
        double factor = 1;
        const Node* node = graph.producer(skip_scalars(graph, i, factor));
        return node && (node->is("MatMul") || node->is("Add") || node->is("Where") || node->is("Tanh")) && shape_of(graph, i) &&
               *shape_of(graph, i) == scores;
      };
      ValueId mask = kNoValue;
      next = pick_input(*add, leads_on, &mask);
      if (next == kNoValue || !is_mask_for(graph, mask, scores)) return std::nullopt;
      match.masks.push_back(mask);
    } else if (const Node* where = producer_is(graph, v, "Where")) {
      const Shape* condition = shape_of(graph, where->inputs[0]);
      if (condition == nullptr || condition->rank() > 4) return std::nullopt;
      const Node copy = *where;  // adding nodes moves the storage of *where
      const ValueId mask = where_as_mask(graph, copy, &next);
      if (mask == kNoValue) {
        ctx.note("fuse_attention: '" + copy.name + "' masks with a value that an added mask cannot stand for");
        return std::nullopt;
      }
      match.masks.push_back(mask);
    }
    if (next == kNoValue) return std::nullopt;
    v = next;
  }
  return std::nullopt;
}

bool is_last_axis_softmax(const Graph& graph, const Node& node) {
  const Shape* shape = shape_of(graph, node.inputs[0]);
  if (shape == nullptr || shape->rank() != 4 || graph.value(node.inputs[0]).dtype != DType::kF32) return false;
  const int64_t axis = node.attrs.get_int("axis", node.version < 13 ? 1 : -1);
  return axis == -1 || axis == 3;
}

// One additive mask from several: their sum, or the only one.
ValueId sum_masks(Graph& graph, const std::vector<ValueId>& masks, const std::string& name) {
  ValueId sum = masks[0];
  for (size_t i = 1; i < masks.size(); ++i) {
    const NodeId add = graph.add_node("", "Add", 14, {sum, masks[i]}, {name + "/masks"});
    graph.node(add).name = name + "/masks";
    graph.node(add).def = find_op("", "Add", 14);
    sum = graph.node(add).outputs[0];
  }
  return sum;
}

struct Result4 {
  ValueId value;
  const char* layout;
};

// The value to replace: the transposed and merged [B,S,H*Dv] if the graph goes on that way, else the product itself.
Result4 choose_output(const Graph& graph, ValueId product) {
  const NodeId transpose = only_user(graph, product);
  if (transpose == kNoNode || !graph.node(transpose).is("Transpose") || !has_perm(graph.node(transpose), {0, 2, 1, 3})) {
    return {product, "bhsd"};
  }
  const ValueId transposed = graph.node(transpose).outputs[0];
  const NodeId reshape = only_user(graph, transposed);
  if (reshape == kNoNode || !graph.node(reshape).is("Reshape")) return {product, "bhsd"};
  const Shape *from = shape_of(graph, transposed), *to = shape_of(graph, graph.node(reshape).outputs[0]);
  const bool merges = from && to && *to == Shape{(*from)[0], (*from)[1], (*from)[2] * (*from)[3]};
  return merges ? Result4{graph.node(reshape).outputs[0], "bshd"} : Result4{product, "bhsd"};
}

// p in Where(IsNaN(p), 0, p), which torch.export writes behind a Softmax so that rows without any key give 0, as
// sprun.Attention does anyway.
ValueId skip_nan_guard(const Graph& graph, ValueId v) {
  const Node* where = producer_is(graph, v, "Where");
  const Node* is_nan = where ? producer_is(graph, where->inputs[0], "IsNaN") : nullptr;
  const bool guards = is_nan && is_nan->inputs[0] == where->inputs[2] && scalar_constant(graph, where->inputs[1]) == 0.0;
  return guards ? where->inputs[2] : v;
}

// The softmax whose result is the left operand of a product, and the codes in between, if any.
struct Probabilities {
  const Node* softmax = nullptr;
  std::optional<QuantizeParams> codes = {};
};

Probabilities find_softmax(const Graph& graph, ValueId v) {
  if (const Node* softmax = producer_is(graph, skip_nan_guard(graph, v), "Softmax")) return {softmax};
  const Node* dequantize = producer_is(graph, v, "DequantizeLinear");
  const Node* quantize = dequantize ? producer_is(graph, dequantize->inputs[0], "QuantizeLinear") : nullptr;
  const Node* softmax = quantize ? producer_is(graph, quantize->inputs[0], "Softmax") : nullptr;
  const auto from = quantize ? quantize_params(graph, *quantize) : std::nullopt;
  const auto to = quantize ? quantize_params(graph, *dequantize) : std::nullopt;
  const bool same = from && to && same_codes(graph, *from, *to);
  if (!softmax || !same || !graph.has_one_use(quantize->outputs[0]) || !graph.has_one_use(quantize->inputs[0])) return {};
  return {softmax, from};
}

void set_codes(const Graph& graph, AttrMap& attrs, const std::string& name, const QuantizeParams& codes) {
  attrs.set(name + "_scale", scale_value(graph, codes));
  attrs.set(name + "_zero", zero_value(graph, codes));
}

// The codes that the result of a product becomes, if nothing else reads it; *value is then those codes.
std::optional<QuantizeParams> take_quantize(const Graph& graph, ValueId* value) {
  const NodeId user = only_user(graph, *value);
  if (user == kNoNode || !graph.node(user).is("QuantizeLinear")) return std::nullopt;
  const auto codes = quantize_params(graph, graph.node(user));
  if (codes) *value = graph.node(user).outputs[0];
  return codes;
}

NodeId make_attention(Graph& graph, const Match& match, const HeadsOperand& v, Result4 result, const char* op) {
  const std::string name = graph.producer(result.value)->name;
  std::vector<ValueId> inputs = {match.q.value, match.k.value, v.value};
  if (!match.masks.empty()) inputs.push_back(sum_masks(graph, match.masks, name));
  const NodeId made = take_over(graph, result.value, "sprun", op, 1, inputs);
  AttrMap& attrs = graph.node(made).attrs;
  attrs.set("num_heads", match.q.heads);
  attrs.set("kv_num_heads", v.heads);
  attrs.set("head_dim", match.head_dim);
  attrs.set("scale", static_cast<float>(match.scale));
  if (match.softcap != 0) attrs.set("softcap", static_cast<float>(match.softcap));
  attrs.set("q_layout", match.q.layout);
  attrs.set("k_layout", match.k.layout);
  attrs.set("v_layout", v.layout);
  attrs.set("q_offset", match.q.offset);
  attrs.set("k_offset", match.k.offset);
  attrs.set("v_offset", v.offset);
  attrs.set("out_layout", std::string(result.layout));
  return made;
}

void fuse_int8(Graph& graph, ValueId out, const Match& match, const HeadsOperand& v, const QuantizeParams& p) {
  const int64_t v_head_dim = (*shape_of(graph, out))[3];
  const auto y = take_quantize(graph, &out);
  const NodeId made = make_attention(graph, match, v, choose_output(graph, out), "AttentionInt8");
  AttrMap& attrs = graph.node(made).attrs;
  attrs.set("v_head_dim", v_head_dim);
  set_codes(graph, attrs, "q", *match.q.codes);
  set_codes(graph, attrs, "k", *match.k.codes);
  set_codes(graph, attrs, "v", *v.codes);
  set_codes(graph, attrs, "p", p);
  if (p.dtype == DType::kS8) attrs.set("p_signed", int64_t{1});
  if (!y) return;
  set_codes(graph, attrs, "y", *y);
  if (y->dtype == DType::kS8) attrs.set("y_signed", int64_t{1});
}

bool fuse_at(Graph& graph, NodeId n, PassContext& ctx) {
  const Node& product = graph.node(n);
  const Probabilities p = find_softmax(graph, product.input(0));
  if (!p.softmax || !graph.has_one_use(product.inputs[0]) || !is_last_axis_softmax(graph, *p.softmax)) return false;
  const std::string name = product.name;
  const ValueId out = product.outputs[0], v_value = product.inputs[1];
  const bool in_codes = p.codes.has_value();
  const auto match = match_scores(graph, p.softmax->inputs[0], in_codes, ctx);
  if (!match) {
    ctx.note("fuse_attention: '" + name + "' has a Softmax, but no scaled and masked product of two values before it");
    return false;
  }
  const HeadsOperand v = read_heads(graph, v_value, in_codes);
  const Shape* o = shape_of(graph, out);
  if (!o || v.factor != 1 || v.heads != match->k.heads || v.heads == 0 || match->q.heads % v.heads != 0) {
    ctx.note("fuse_attention: '" + name + "' has different numbers of key and value heads, or scaled values");
    return false;
  }
  if (in_codes) {
    if (match->q.codes && match->k.codes && v.codes && match->softcap == 0) {
      fuse_int8(graph, out, *match, v, *p.codes);
      return true;
    }
    ctx.note("fuse_attention: '" + name + "' quantises the softmax's result, but not Q, K and V with one scale each");
    return false;
  }
  const int64_t v_head_dim = (*o)[3];
  AttrMap& attrs = graph.node(make_attention(graph, *match, v, choose_output(graph, out), "Attention")).attrs;
  attrs.set("v_head_dim", v_head_dim);
  if (ctx.precision == Precision::kBf16) attrs.set("precision", std::string("bf16"));
  return true;
}

}  // namespace

Result<int> pass_fuse_attention(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    if (!graph.node(n).dead && graph.node(n).is("MatMul") && fuse_at(graph, n, ctx)) ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
