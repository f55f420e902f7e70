// ai.onnx Attention (23, 24, 25).
#include <cmath>

#include "graph/ops/attention_util.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

using kernels::AttentionArgs;
using kernels::ScoreOutput;

enum Input { kQ, kK, kV, kMask, kPastKey, kPastValue, kNonpad };
enum Output { kY, kPresentKey, kPresentValue, kScores };

// The problem and the parts of it that are not in AttentionArgs.
struct Problem {
  AttentionArgs args;
  int64_t past = 0, fresh = 0;  // kv_len = past + fresh
  kernels::AttentionStrides fresh_k, fresh_v;
  bool has_past = false, has_nonpad = false;
};

template <class Ctx>
Status check_ranks(const Ctx& ctx) {
  const Node& node = ctx.node();
  const Shape &q = ctx.input(kQ).shape, &k = ctx.input(kK).shape, &v = ctx.input(kV).shape;
  if ((q.rank() != 3 && q.rank() != 4) || k.rank() != q.rank() || v.rank() != q.rank()) {
    return op_error(node, "Q, K and V must all have rank 3 or 4, got " + q.to_string() + ", " + k.to_string() + ", " +
                              v.to_string());
  }
  if (!is_float(ctx.input(kQ).dtype) || ctx.input(kK).dtype != ctx.input(kQ).dtype || !is_float(ctx.input(kV).dtype)) {
    return op_error(node, "Q, K and V must be float tensors, Q and K of one type");
  }
  if (ctx.has_input(kPastKey) != ctx.has_input(kPastValue)) {
    return op_error(node, "past_key and past_value must be given together");
  }
  if (ctx.has_input(kNonpad) && ctx.has_input(kPastKey)) {
    return op_error(node, "nonpad_kv_seqlen cannot be combined with past_key");
  }
  return {};
}

template <class Ctx>
Status set_sizes(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  const Shape &q = ctx.input(kQ).shape, &k = ctx.input(kK).shape, &v = ctx.input(kV).shape;
  const int r = q.rank();
  a.batch = q[0];
  a.q_len = q[r - 2];
  p.fresh = k[r - 2];
  int64_t k_dim = 0;
  if (r == 4) {
    a.heads = q[1], a.kv_heads = k[1], a.head_dim = q[3], k_dim = k[3], a.v_dim = v[3];
  } else {
    SPRUN_ASSIGN(a.heads, required_count(node, "q_num_heads"));
    SPRUN_ASSIGN(a.kv_heads, required_count(node, "kv_num_heads"));
    SPRUN_ASSIGN(a.head_dim, head_size(node, q[2], a.heads, "Q"));
    SPRUN_ASSIGN(k_dim, head_size(node, k[2], a.kv_heads, "K"));
    SPRUN_ASSIGN(a.v_dim, head_size(node, v[2], a.kv_heads, "V"));
  }
  const bool fits = k[0] == a.batch && v[0] == a.batch && k_dim == a.head_dim && v[r - 2] == p.fresh &&
                    (r == 3 || v[1] == a.kv_heads);
  if (!fits || a.kv_heads < 1 || a.heads % a.kv_heads != 0) {
    return op_error(node, "shapes do not agree: Q " + q.to_string() + ", K " + k.to_string() + ", V " + v.to_string() +
                              " with " + std::to_string(a.heads) + " and " + std::to_string(a.kv_heads) + " heads");
  }
  return {};
}

template <class Ctx>
Status set_past(const Ctx& ctx, Problem& p) {
  AttentionArgs& a = p.args;
  p.has_past = ctx.has_input(kPastKey);
  if (p.has_past) {
    const Shape &key = ctx.input(kPastKey).shape, &value = ctx.input(kPastValue).shape;
    p.past = key.rank() == 4 ? key[2] : 0;
    if (!(key == Shape{a.batch, a.kv_heads, p.past, a.head_dim}) ||
        !(value == Shape{a.batch, a.kv_heads, p.past, a.v_dim}) ||
        ctx.input(kPastKey).dtype != ctx.input(kK).dtype || ctx.input(kPastValue).dtype != ctx.input(kV).dtype) {
      return op_error(ctx.node(), "past_key " + key.to_string() + " or past_value " + value.to_string() +
                                      " does not have the form [batch, kv_heads, past, head_size] of K and V");
    }
  }
  p.has_nonpad = ctx.has_input(kNonpad);
  if (p.has_nonpad && (ctx.input(kNonpad).dtype != DType::kS64 || !(ctx.input(kNonpad).shape == Shape{a.batch}))) {
    return op_error(ctx.node(), "nonpad_kv_seqlen must be int64 of shape " + Shape{a.batch}.to_string() + ", got " +
                                    ctx.input(kNonpad).shape.to_string());
  }
  a.kv_len = p.past + p.fresh;
  a.offset = p.past;
  return {};
}

template <class Ctx>
Status set_attributes(const Ctx& ctx, Problem& p) {
  AttentionArgs& a = p.args;
  const AttrMap& attrs = ctx.attrs();
  const double inverse = 1.0 / std::sqrt(static_cast<double>(std::max<int64_t>(a.head_dim, 1)));
  a.scale = attrs.get_float("scale", static_cast<float>(inverse));
  a.softcap = attrs.get_float("softcap", 0.0F);
  a.causal = attrs.get_int("is_causal", 0) != 0;
  a.left_window = attrs.get_int("left_window_size", -1);
  a.right_window = attrs.get_int("right_window_size", -1);
  if (a.left_window < -1 || a.right_window < -1) return op_error(ctx.node(), "a window size is below -1");
  const int64_t precision = attrs.get_int("softmax_precision", 0);
  if (precision != 0 && precision != 1 && precision != 10 && precision != 11 && precision != 16) {
    return op_error(ctx.node(), "softmax_precision " + std::to_string(precision) + " is not a float type");
  }
  // A type at least as wide as the one computed in changes nothing.
  const auto type = static_cast<DType>(precision);
  if (type == DType::kF64 || (a.dtype == DType::kF32 && (type == DType::kF16 || type == DType::kBf16))) {
    a.softmax_dtype = type;
  }
  const int64_t mode = attrs.get_int("qk_matmul_output_mode", 0);
  if (mode < 0 || mode > 3) return op_error(ctx.node(), "qk_matmul_output_mode must be 0, 1, 2 or 3");
  if (ctx.node().output(kScores) != kNoValue) {
    a.score_output = static_cast<ScoreOutput>(static_cast<int64_t>(ScoreOutput::kRaw) + mode);
  }
  return {};
}

// A mask may have fewer keys than K has: the rest is -inf. In version 23 a last axis of 1 broadcasts instead.
template <class Ctx>
Status set_attention_mask(const Ctx& ctx, Problem& p) {
  if (!ctx.has_input(kMask)) return {};
  AttentionArgs& a = p.args;
  const ConstTensorView& mask = ctx.input(kMask);
  int64_t keys = a.kv_len;
  if (mask.shape.rank() > 0 && mask.shape.back() < keys && (mask.shape.back() != 1 || ctx.node().version >= 24)) {
    keys = mask.shape.back();
    a.mask_keys = keys;
  }
  return set_mask(ctx.node(), mask, keys, a);
}

template <class Ctx>
Status describe(const Ctx& ctx, Problem& p) {
  AttentionArgs& a = p.args;
  SPRUN_TRY(check_ranks(ctx));
  SPRUN_TRY(set_sizes(ctx, p));
  SPRUN_TRY(set_past(ctx, p));
  a.dtype = ctx.input(kQ).dtype;
  a.v_dtype = ctx.input(kV).dtype;
  SPRUN_TRY(set_attributes(ctx, p));
  SPRUN_TRY(set_attention_mask(ctx, p));
  const Shape& q = ctx.input(kQ).shape;
  a.q_strides = strides_by_rank(q, a.heads, a.q_len, a.head_dim);
  a.out_strides = strides_by_rank(q, a.heads, a.q_len, a.v_dim);
  p.fresh_k = strides_by_rank(q, a.kv_heads, p.fresh, a.head_dim);
  p.fresh_v = strides_by_rank(q, a.kv_heads, p.fresh, a.v_dim);
  a.k_strides = p.has_past ? kernels::bhsd_strides(a.kv_heads, a.kv_len, a.head_dim) : p.fresh_k;
  a.v_strides = p.has_past ? kernels::bhsd_strides(a.kv_heads, a.kv_len, a.v_dim) : p.fresh_v;
  return {};
}

Status infer_attention(InferContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  const AttentionArgs& a = p.args;
  const Shape y = ctx.shape(kQ).rank() == 4 ? Shape{a.batch, a.heads, a.q_len, a.v_dim}
                                            : Shape{a.batch, a.q_len, a.heads * a.v_dim};
  ctx.set_output(kY, a.dtype, y);
  ctx.set_output(kPresentKey, a.dtype, {a.batch, a.kv_heads, a.kv_len, a.head_dim});
  ctx.set_output(kPresentValue, a.v_dtype, {a.batch, a.kv_heads, a.kv_len, a.v_dim});
  ctx.set_output(kScores, a.dtype, {a.batch, a.heads, a.q_len, a.kv_len});
  return {};
}

struct Scratch {
  void* kernel;
  int64_t *lengths, *offsets;  // [batch] each, with nonpad_kv_seqlen
  char *key, *value;           // the caches, when they are needed and are no outputs
};

Scratch lay_out(ScratchLayout& layout, const Node& node, const Problem& p, int threads) {
  const AttentionArgs& a = p.args;
  Scratch s{};
  s.kernel = layout.take<char>(kernels::attention_scratch_bytes(a, threads));
  s.lengths = layout.take<int64_t>(p.has_nonpad ? a.batch : 0);
  s.offsets = layout.take<int64_t>(p.has_nonpad ? a.batch : 0);
  const int64_t rows = p.has_past ? a.batch * a.kv_heads * a.kv_len : 0;
  s.key = layout.take<char>(node.output(kPresentKey) != kNoValue ? 0 : rows * a.head_dim * dtype_size(a.dtype));
  s.value = layout.take<char>(node.output(kPresentValue) != kNoValue ? 0 : rows * a.v_dim * dtype_size(a.v_dtype));
  return s;
}

Status prepare_attention(PrepareContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  ScratchLayout layout;
  lay_out(layout, ctx.node(), p, ctx.max_threads());
  auto state = std::make_unique<ScratchState>();
  ctx.scratch_bytes = state->scratch_bytes = layout.used();
  ctx.state = std::move(state);
  describe_attention(ctx, p.args);
  return {};
}

// Where K or V is read from: the new rows themselves, or a cache that this fills.
const void* make_cache(RunContext& ctx, const Problem& p, bool is_key, void* spare) {
  const AttentionArgs& a = p.args;
  const void* fresh = ctx.input(is_key ? kK : kV).data;
  const int output = is_key ? kPresentKey : kPresentValue;
  if (!p.has_past && !ctx.has_output(output)) return fresh;
  void* dst = ctx.has_output(output) ? ctx.output(output).data : spare;
  const ConstTensorView past = p.has_past ? ctx.input(is_key ? kPastKey : kPastValue) : ConstTensorView{};
  append_to_cache(ctx.pool(), {a.batch, a.kv_heads, p.past, p.fresh, is_key ? a.head_dim : a.v_dim,
                               is_key ? a.dtype : a.v_dtype, past.data, fresh, is_key ? p.fresh_k : p.fresh_v, dst});
  return p.has_past ? dst : fresh;
}

Status read_nonpad(RunContext& ctx, Problem& p, const Scratch& scratch) {
  AttentionArgs& a = p.args;
  const auto* lengths = ctx.input(kNonpad).as<int64_t>();
  for (int64_t b = 0; b < a.batch; ++b) {
    if (lengths[b] < 0 || lengths[b] > a.kv_len) {
      return ctx.error("nonpad_kv_seqlen[" + std::to_string(b) + "] is " + std::to_string(lengths[b]) +
                       ", outside [0, " + std::to_string(a.kv_len) + "]");
    }
    scratch.lengths[b] = lengths[b];
    scratch.offsets[b] = lengths[b] - a.q_len;
  }
  a.batch_kv_len = scratch.lengths;
  a.batch_offset = scratch.offsets;
  return {};
}

Status run_attention(RunContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  AttentionArgs& a = p.args;
  ScratchLayout needed;
  lay_out(needed, ctx.node(), p, ctx.pool().num_threads());
  ScratchHolder holder;
  SPRUN_ASSIGN(void* base, holder.get(ctx, needed.used()));
  ScratchLayout layout(base);
  const Scratch scratch = lay_out(layout, ctx.node(), p, ctx.pool().num_threads());
  if (p.has_nonpad) SPRUN_TRY(read_nonpad(ctx, p, scratch));
  a.q = ctx.input(kQ).data;
  a.k = make_cache(ctx, p, true, scratch.key);
  a.v = make_cache(ctx, p, false, scratch.value);
  a.out = ctx.output(kY).data;
  if (ctx.has_output(kScores)) a.scores = ctx.output(kScores).data;
  kernels::attention(a, ctx.pool(), scratch.kernel);
  return {};
}

constexpr OpDef kOps[] = {
    {.name = "Attention", .since = 23, .inputs = {3, 7}, .outputs = {1, 4}, .infer = infer_attention,
     .run = run_attention, .prepare = prepare_attention},
};

}  // namespace

extern const std::span<const OpDef> k_attention_ops;
const std::span<const OpDef> k_attention_ops = kOps;

}  // namespace sprun::graph
