// sprun.CachedAttention: attention of new tokens over keys and values that a session keeps from step to step.
//
//   cache_k[:, p .. p+T) = k,  cache_v alike;   out = softmax(cap(scale * q K^T)) V over tokens [0, p + T)
//   where token p + i sees tokens up to itself, or only the left_window before it and itself
//
// Inputs:
//   0 q, 1 k, 2 v    float32, T tokens, batch 1, in the layouts of sprun.Attention (q_layout, k_layout, v_layout, offsets)
//   3 cache_k        [kv heads, capacity, head_dim]   float32, bfloat16 or int8. WRITTEN: memory of the session
//   4 cache_v        [kv heads, capacity, v_head_dim]
//   5 position       int64 [1]: p, tokens in the cache before this step
//   6, 7 scales      float32 [kv heads, capacity] of keys and of values, with int8 only. WRITTEN
//   8 bias           optional float32 [num_heads, capacity + T - 1]: a key that is d tokens before its query gets element
//                    capacity - 1 - d of the head's row added to its score
// Attributes: num_heads*, head_dim*, kv_num_heads, v_head_dim, scale, softcap, layouts and offsets as in sprun.Attention;
//   left_window (-1: all)
// kBadInput when p + T exceeds the capacity.
#include "graph/ops/attention_operand.h"
#include "graph/ops/attention_util.h"
#include "graph/ops/op_util.h"
#include "kernels/attention/kv_cache.h"

namespace sprun::graph {
namespace {

using kernels::AttentionArgs;

enum Input { kQ, kK, kV, kCacheK, kCacheV, kPosition, kScalesK, kScalesV, kBias };

struct Problem {
  AttentionArgs args;
  AttentionOperand q, k, v;
  int64_t capacity = 0;
  bool bhsd_out = false;
};

template <class Ctx>
Status describe_cache(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  const ConstTensorView &k = ctx.input(kCacheK), &v = ctx.input(kCacheV);
  p.capacity = k.shape.rank() == 3 ? k.shape[1] : 0;
  const bool known = k.dtype == DType::kF32 || k.dtype == DType::kBf16 || k.dtype == DType::kS8;
  if (!(k.shape == Shape{a.kv_heads, p.capacity, a.head_dim}) || !(v.shape == Shape{a.kv_heads, p.capacity, a.v_dim}) ||
      k.dtype != v.dtype || !known) {
    return op_error(node, "the caches " + k.shape.to_string() + " and " + v.shape.to_string() +
                              " are not [kv heads, capacity, dim] of float32, bfloat16 or int8");
  }
  a.k_dtype = a.v_dtype = k.dtype;
  a.scale_head = p.capacity;
  for (const int i : {kScalesK, kScalesV}) {
    const bool right = ctx.has_input(i) && ctx.input(i).dtype == DType::kF32 &&
                       ctx.input(i).shape == Shape{a.kv_heads, p.capacity};
    if (k.dtype == DType::kS8 && !right) return op_error(node, "an int8 cache needs float32 scales [kv heads, capacity]");
  }
  if (p.k.strides.dim != 1 || p.v.strides.dim != 1) return op_error(node, "new keys and values must be rows");
  if (ctx.input(kPosition).dtype != DType::kS64 || !(ctx.input(kPosition).shape == Shape{1})) {
    return op_error(node, "position must be int64 of shape [1]");
  }
  a.k_strides = kernels::bhsd_strides(a.kv_heads, p.capacity, a.head_dim);
  a.v_strides = kernels::bhsd_strides(a.kv_heads, p.capacity, a.v_dim);
  return {};
}

// Each query reads the same row of the table, one element further to the left than the query before it.
template <class Ctx>
Status describe_bias(const Ctx& ctx, Problem& p) {
  if (!ctx.has_input(kBias)) return {};
  AttentionArgs& a = p.args;
  const ConstTensorView& bias = ctx.input(kBias);
  const Shape expected{a.heads, p.capacity + a.q_len - 1};
  if (bias.dtype != DType::kF32 || !(bias.shape == expected)) {
    return op_error(ctx.node(), "bias must be float32 of shape " + expected.to_string());
  }
  a.mask_kind = kernels::MaskKind::kAdd;
  a.mask_head = expected[1];
  a.mask_row = a.q_len > 1 ? -1 : 0;
  a.mask_key = 1;
  return {};
}

template <class Ctx>
Status describe(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  const AttrMap& attrs = ctx.attrs();
  AttentionArgs& a = p.args;
  for (const int i : {kQ, kK, kV}) {
    if (ctx.input(i).dtype != DType::kF32) return op_error(node, "q, k and v must be float32");
  }
  SPRUN_ASSIGN(a.heads, required_count(node, "num_heads"));
  SPRUN_ASSIGN(a.head_dim, required_count(node, "head_dim"));
  a.kv_heads = attrs.get_int("kv_num_heads", a.heads);
  a.v_dim = attrs.get_int("v_head_dim", a.head_dim);
  if (a.kv_heads < 1 || a.heads % a.kv_heads != 0 || a.v_dim < 1) {
    return op_error(node, "kv_num_heads or v_head_dim does not fit num_heads " + std::to_string(a.heads));
  }
  SPRUN_ASSIGN(p.q, read_attention_operand(ctx, kQ, 'q', a.heads, a.head_dim));
  SPRUN_ASSIGN(p.k, read_attention_operand(ctx, kK, 'k', a.kv_heads, a.head_dim));
  SPRUN_ASSIGN(p.v, read_attention_operand(ctx, kV, 'v', a.kv_heads, a.v_dim));
  if (p.q.batch != 1 || p.k.batch != 1 || p.v.batch != 1 || p.k.rows != p.q.rows || p.v.rows != p.q.rows) {
    return op_error(node, "q, k and v differ in tokens, or the batch is not 1");
  }
  SPRUN_TRY(describe_cache(ctx, p));
  a.batch = 1;
  a.q_len = p.q.rows;
  a.kv_len = p.capacity;
  a.q_strides = p.q.strides;
  a.scale = attention_scale(node, a.head_dim);
  a.softcap = attrs.get_float("softcap", 0.0F);
  a.causal = a.q_len > 1;
  a.left_window = attrs.get_int("left_window", -1);
  a.bf16_products = attrs.get_string("precision", "f32") == "bf16";
  SPRUN_TRY(describe_bias(ctx, p));
  p.bhsd_out = attrs.get_string("out_layout", "bshd") == "bhsd";
  a.out_strides = p.bhsd_out ? kernels::bhsd_strides(a.heads, a.q_len, a.v_dim)
                             : kernels::bshd_strides(a.heads, a.q_len, a.v_dim);
  return {};
}

Status infer_cached(InferContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  const AttentionArgs& a = p.args;
  ctx.set_output(0, DType::kF32, p.bhsd_out ? Shape{1, a.heads, a.q_len, a.v_dim} : Shape{1, a.q_len, a.heads * a.v_dim});
  return {};
}

Status prepare_cached(PrepareContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  auto state = std::make_unique<ScratchState>();
  ctx.scratch_bytes = state->scratch_bytes = kernels::attention_scratch_bytes(p.args, ctx.max_threads());
  ctx.state = std::move(state);
  describe_attention(ctx, p.args);
  return {};
}

// The caches are inputs of the plan and memory of the session: the one place that may write to an input.
template <class T>
T* writable(const RunContext& ctx, int input) {
  return ctx.has_input(input) ? const_cast<T*>(ctx.input(input).as<T>()) : nullptr;
}

// Stores the new rows of input `from` behind the first `position` rows of the cache.
void store(const RunContext& ctx, const Problem& p, int from, const AttentionOperand& rows, int64_t dim, int cache,
           int scales, int64_t position) {
  const kernels::KvCacheRows fresh{.kv_heads = p.args.kv_heads, .rows = rows.rows, .dim = dim,
                                   .x = ctx.input(from).as<float>() + rows.offset, .x_head = rows.strides.head,
                                   .x_row = rows.strides.row};
  const kernels::KvCacheView view{.dtype = p.args.k_dtype, .data = writable<char>(ctx, cache),
                                  .scales = writable<float>(ctx, scales), .capacity = p.capacity};
  kernels::kv_cache_store(fresh, view, position, ctx.pool());
}

Status run_cached(RunContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  AttentionArgs& a = p.args;
  const int64_t position = ctx.input(kPosition).as<int64_t>()[0];
  if (position < 0 || position > p.capacity - a.q_len) {
    return ctx.error("the cache holds " + std::to_string(p.capacity) + " tokens, got " + std::to_string(position) +
                     " and " + std::to_string(a.q_len) + " new ones");
  }
  ScratchHolder holder;
  SPRUN_ASSIGN(void* scratch, holder.get(ctx, kernels::attention_scratch_bytes(a, ctx.pool().num_threads())));
  store(ctx, p, kK, p.k, a.head_dim, kCacheK, kScalesK, position);
  store(ctx, p, kV, p.v, a.v_dim, kCacheV, kScalesV, position);
  a.q = ctx.input(kQ).as<float>() + p.q.offset;
  a.k = ctx.input(kCacheK).data;
  a.v = ctx.input(kCacheV).data;
  if (a.k_dtype == DType::kS8) {
    a.k_scale = ctx.input(kScalesK).as<float>();
    a.v_scale = ctx.input(kScalesV).as<float>();
  }
  if (ctx.has_input(kBias)) a.mask = ctx.input(kBias).as<float>() + (p.capacity - 1 - position);
  a.out = ctx.output(0).data;
  a.kv_len = position + a.q_len;
  a.offset = position;
  kernels::attention(a, ctx.pool(), scratch);
  return {};
}

constexpr OpDef kOps[] = {
    {.domain = "sprun", .name = "CachedAttention", .inputs = {6, 9}, .infer = infer_cached, .run = run_cached,
     .prepare = prepare_cached},
};

}  // namespace

extern const std::span<const OpDef> k_cached_attention_ops;
const std::span<const OpDef> k_cached_attention_ops = kOps;

}  // namespace sprun::graph
