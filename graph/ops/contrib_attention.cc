// com.microsoft Attention and QAttention: the Q, K and V projection and the attention over it in one node.
#include <algorithm>
#include <cstring>

#include "graph/ops/attention_projection.h"
#include "graph/ops/attention_util.h"
#include "graph/ops/contrib_mask.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

using kernels::AttentionArgs;

// Input positions that differ between the two ops; -1: the op has no such input.
struct InputMap {
  int mask, past, attention_bias, past_length;
};
constexpr InputMap kFloatInputs{3, 4, 5, 6};
constexpr InputMap kQuantInputs{5, 8, -1, -1};

struct Problem {
  AttentionArgs args;
  PaddingMask mask;
  int64_t input_dim = 0, qk_hidden = 0, v_hidden = 0, past = 0;
  bool has_past = false, has_present = false;
  int64_t width() const { return 2 * qk_hidden + v_hidden; }
};

template <class Ctx>
Status set_hidden_sizes(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  const Shape &x = ctx.input(0).shape, &w = ctx.input(1).shape;
  if (x.rank() != 3 || w.rank() != 2 || w[0] != x[2]) {
    return op_error(node,
                    "expected input [B, S, K] and weights [K, N], got " + x.to_string() + " and " + w.to_string());
  }
  p.input_dim = x[2];
  const std::vector<int64_t>& sizes = ctx.attrs().get_ints("qkv_hidden_sizes");
  if (!sizes.empty()) {
    if (sizes.size() != 3 || sizes[0] != sizes[1] || sizes[0] < 0 || sizes[2] < 0) {
      return op_error(node, "qkv_hidden_sizes must be three sizes, the first two equal");
    }
    p.qk_hidden = sizes[0], p.v_hidden = sizes[2];
  } else {
    p.qk_hidden = p.v_hidden = w[1] / 3;
  }
  if (p.qk_hidden > w[1] || p.v_hidden > w[1] || p.width() != w[1]) {
    return op_error(node, "weights of " + std::to_string(w[1]) + " columns do not split into Q, K and V");
  }
  if (ctx.has_input(2) && !(ctx.input(2).shape == Shape{w[1]})) {
    return op_error(node, "bias " + ctx.input(2).shape.to_string() + " does not match weights " + w.to_string());
  }
  return {};
}

template <class Ctx>
Status set_past(const Ctx& ctx, const InputMap& map, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  if (ctx.attrs().get_int("past_present_share_buffer", 0) != 0) {
    return op_error(node, "past_present_share_buffer is not supported");
  }
  if (ctx.attrs().get_int("do_rotary", 0) != 0) return op_error(node, "do_rotary is not supported");
  p.has_present = node.output(1) != kNoValue;
  p.has_past = ctx.has_input(map.past);
  if ((p.has_past || p.has_present) && p.qk_hidden != p.v_hidden) {
    return op_error(node, "a past state needs Q, K and V of one size");
  }
  if (p.has_past) {
    const Shape& past = ctx.input(map.past).shape;
    p.past = past.rank() == 5 ? past[3] : 0;
    if (!(past == Shape{2, a.batch, a.heads, p.past, a.head_dim}) || ctx.input(map.past).dtype != a.dtype) {
      return op_error(node,
                      "past " + past.to_string() + " is not [2, batch, heads, past, head_size] of the input's type");
    }
  }
  a.offset = p.past;
  a.kv_len = p.past + a.q_len;
  return {};
}

template <class Ctx>
Status describe(const Ctx& ctx, const InputMap& map, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  SPRUN_TRY(set_hidden_sizes(ctx, p));
  SPRUN_ASSIGN(a.heads, required_count(node, "num_heads"));
  a.kv_heads = a.heads;
  a.batch = ctx.input(0).shape[0];
  a.q_len = ctx.input(0).shape[1];
  SPRUN_ASSIGN(a.head_dim, head_size(node, p.qk_hidden, a.heads, "Q"));
  SPRUN_ASSIGN(a.v_dim, head_size(node, p.v_hidden, a.heads, "V"));
  a.dtype = a.v_dtype = map.past_length < 0 ? ctx.input(3).dtype : ctx.input(0).dtype;
  const bool weights_fit = map.past_length < 0 || ctx.input(1).dtype == a.dtype;
  if (!is_float(a.dtype) || !weights_fit || (ctx.has_input(2) && ctx.input(2).dtype != a.dtype)) {
    return op_error(node, "input, weights and bias (QAttention: scales and bias) must have one float type");
  }
  SPRUN_TRY(set_past(ctx, map, p));
  a.scale = attention_scale(node, a.head_dim);
  a.causal = ctx.attrs().get_int("unidirectional", 0) != 0;
  // A later key gets the lowest float instead of -inf: rows whose every earlier key is padding then spread evenly.
  a.frontier_fill = std::numeric_limits<float>::lowest();
  SPRUN_ASSIGN(p.mask, PaddingMask::from(ctx, map.mask, map.attention_bias, p.past, a));

  const int64_t row = p.width();
  a.q_strides = {a.q_len * row, a.head_dim, row};
  a.k_strides = p.has_past ? kernels::bhsd_strides(a.heads, a.kv_len, a.head_dim) : a.q_strides;
  a.v_strides = p.has_past ? a.k_strides : kernels::AttentionStrides{a.q_len * row, a.v_dim, row};
  a.out_strides = kernels::bshd_strides(a.heads, a.q_len, a.v_dim);
  return {};
}

Status infer(InferContext& ctx, const InputMap& map) {
  Problem p;
  SPRUN_TRY(describe(ctx, map, p));
  const AttentionArgs& a = p.args;
  ctx.set_output(0, a.dtype, {a.batch, a.q_len, p.v_hidden});
  ctx.set_output(1, a.dtype, {2, a.batch, a.heads, a.kv_len, a.head_dim});
  return {};
}

struct Scratch {
  void *kernel, *projection;
  char* qkv;      // [B, S, 2 * qk_hidden + v_hidden]
  float* mask;
  char* present;  // when it is needed and is no output
};

Scratch lay_out(ScratchLayout& layout, const Problem& p, int64_t projection_bytes, int threads) {
  const AttentionArgs& a = p.args;
  const int64_t size = dtype_size(a.dtype);
  Scratch s{};
  s.kernel = layout.take<char>(kernels::attention_scratch_bytes(a, threads));
  s.projection = layout.take<char>(projection_bytes);
  s.qkv = layout.take<char>(a.batch * a.q_len * p.width() * size);
  s.mask = layout.take<float>(p.mask.scratch_floats());
  s.present =
      layout.take<char>(p.has_past && !p.has_present ? 2 * a.batch * a.heads * a.kv_len * a.head_dim * size : 0);
  return s;
}

// Appends this step's K and V to the past and points the problem at the result.
void make_present(RunContext& ctx, const InputMap& map, Problem& p, const Scratch& s) {
  AttentionArgs& a = p.args;
  const int64_t size = dtype_size(a.dtype);
  const char* k = s.qkv + p.qk_hidden * size;
  const char* v = k + p.qk_hidden * size;
  a.k = k, a.v = v;
  if (!p.has_past && !p.has_present) return;
  auto* present = p.has_present ? ctx.output(1).as<char>() : s.present;
  const char* past = p.has_past ? static_cast<const char*>(ctx.input(map.past).data) : nullptr;
  const int64_t past_half = a.batch * a.heads * p.past * a.head_dim * size;
  const int64_t half = a.batch * a.heads * a.kv_len * a.head_dim * size;
  const CacheAppend key{a.batch, a.heads, p.past, a.q_len, a.head_dim, a.dtype, past, k, a.q_strides, present};
  CacheAppend value = key;
  value.past = past ? past + past_half : nullptr;
  value.fresh = v;
  value.dst = present + half;
  append_to_cache(ctx.pool(), key);
  append_to_cache(ctx.pool(), value);
  if (!p.has_past) return;
  a.k = present, a.v = present + half;
}

template <class Projection>
Status prepare(PrepareContext& ctx, const InputMap& map) {
  Problem p;
  SPRUN_TRY(describe(ctx, map, p));
  const int64_t rows = p.args.batch * p.args.q_len;
  SPRUN_ASSIGN(auto state, Projection::prepare(ctx, rows, p.width(), p.input_dim));
  ScratchLayout layout;
  lay_out(layout, p, Projection::scratch_bytes(state.get()), ctx.max_threads());
  ctx.scratch_bytes = layout.used();
  if (state) state->scratch_bytes = ctx.scratch_bytes;
  ctx.state = std::move(state);
  describe_attention(ctx, p.args);
  return {};
}

template <class Projection>
Status run(RunContext& ctx, const InputMap& map) {
  Problem p;
  SPRUN_TRY(describe(ctx, map, p));
  AttentionArgs& a = p.args;
  const int64_t rows = a.batch * a.q_len;
  const int threads = ctx.pool().num_threads();
  const int64_t projection_bytes = Projection::scratch_bytes(ctx.state());
  ScratchLayout needed;
  lay_out(needed, p, projection_bytes, threads);
  ScratchHolder holder;
  SPRUN_ASSIGN(void* base, holder.get(ctx, needed.used()));
  ScratchLayout layout(base);
  const Scratch s = lay_out(layout, p, projection_bytes, threads);
  SPRUN_TRY(Projection::run(ctx, rows, p.width(), p.input_dim, s.qkv, s.projection));
  a.q = s.qkv;
  make_present(ctx, map, p, s);
  p.mask.apply(s.mask, a);
  a.out = ctx.output(0).data;
  kernels::attention(a, ctx.pool(), s.kernel);
  return {};
}

Status check_quantised(const InferContext& ctx) {
  const Node& node = ctx.node();
  const auto is_byte = [&](int i) { return ctx.dtype(i) == DType::kU8 || ctx.dtype(i) == DType::kS8; };
  if (!is_byte(0) || !is_byte(1)) return op_error(node, "input and weights must be 8-bit integers");
  const int64_t columns = ctx.shape(1).rank() == 2 ? ctx.shape(1)[1] : 0;
  const auto fits = [&](int i, bool per_column) {
    const int64_t n = ctx.shape(i).num_elements();
    return n == 1 || (per_column && ctx.shape(i).rank() == 1 && n == columns);
  };
  if (ctx.dtype(4) != ctx.dtype(3) || !fits(3, false) || !fits(4, true)) {
    return op_error(node, "input_scale must be a scalar, weight_scale a scalar or one value a column");
  }
  if (ctx.has_input(6) && (!fits(6, false) || ctx.dtype(6) != ctx.dtype(0))) {
    return op_error(node, "input_zero_point must be a scalar of the input's type");
  }
  if (ctx.has_input(7) && (!fits(7, true) || ctx.dtype(7) != ctx.dtype(1))) {
    return op_error(node, "weight_zero_point must be of the weights' type, a scalar or one value a column");
  }
  return {};
}

Status infer_attention(InferContext& ctx) { return infer(ctx, kFloatInputs); }
Status prepare_attention(PrepareContext& ctx) { return prepare<FloatProjection>(ctx, kFloatInputs); }
Status run_attention(RunContext& ctx) { return run<FloatProjection>(ctx, kFloatInputs); }

Status infer_qattention(InferContext& ctx) {
  SPRUN_TRY(check_quantised(ctx));
  return infer(ctx, kQuantInputs);
}
Status prepare_qattention(PrepareContext& ctx) { return prepare<ByteProjection>(ctx, kQuantInputs); }
Status run_qattention(RunContext& ctx) { return run<ByteProjection>(ctx, kQuantInputs); }

constexpr OpDef kOps[] = {
    {.domain = "com.microsoft", .name = "Attention", .inputs = {2, 7}, .outputs = {1, 2}, .infer = infer_attention,
     .run = run_attention, .prepare = prepare_attention},
    {.domain = "com.microsoft", .name = "QAttention", .inputs = {5, 9}, .outputs = {1, 2}, .infer = infer_qattention,
     .run = run_qattention, .prepare = prepare_qattention},
};

}  // namespace

extern const std::span<const OpDef> k_contrib_attention_ops;
const std::span<const OpDef> k_contrib_attention_ops = kOps;

}  // namespace sprun::graph
