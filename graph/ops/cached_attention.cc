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
// Attributes: num_heads*, head_dim*, kv_num_heads, v_head_dim, scale, softcap, layouts and offsets as in sprun.Attention;
//   left_window (-1: all)
// kBadInput when p + T exceeds the capacity.
#include "graph/ops/attention_operand.h"
#include "graph/ops/attention_util.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

using kernels::AttentionArgs;

enum Input { kQ, kK, kV, kCacheK, kCacheV, kPosition, kScalesK, kScalesV };

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
  if (!(k.shape == Shape{a.kv_heads, p.capacity, a.head_dim}) || !(v.shape == Shape{a.kv_heads, p.capacity, a.v_dim}) ||
      k.dtype != v.dtype || k.dtype != DType::kF32) {
    return op_error(node, "the caches " + k.shape.to_string() + " and " + v.shape.to_string() +
                              " are not [kv heads, capacity, dim] of one type");
  }
  if (ctx.input(kPosition).dtype != DType::kS64 || !(ctx.input(kPosition).shape == Shape{1})) {
    return op_error(node, "position must be int64 of shape [1]");
  }
  a.k_strides = kernels::bhsd_strides(a.kv_heads, p.capacity, a.head_dim);
  a.v_strides = kernels::bhsd_strides(a.kv_heads, p.capacity, a.v_dim);
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

// Copies the new rows of all heads behind the first `position` rows of the cache.
void store_rows(const float* from, const kernels::AttentionStrides& strides, int64_t heads, int64_t rows, int64_t dim,
                float* cache, int64_t capacity, int64_t position) {
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < rows; ++i) {
      const float* source = from + h * strides.head + i * strides.row;
      float* target = cache + (h * capacity + position + i) * dim;
      for (int64_t d = 0; d < dim; ++d) target[d] = source[d * strides.dim];
    }
  }
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
  // The caches are inputs of the plan and memory of the session: the one place that may write there.
  auto* cache_k = const_cast<float*>(ctx.input(kCacheK).as<float>());
  auto* cache_v = const_cast<float*>(ctx.input(kCacheV).as<float>());
  store_rows(ctx.input(kK).as<float>() + p.k.offset, p.k.strides, a.kv_heads, a.q_len, a.head_dim, cache_k, p.capacity,
             position);
  store_rows(ctx.input(kV).as<float>() + p.v.offset, p.v.strides, a.kv_heads, a.q_len, a.v_dim, cache_v, p.capacity,
             position);
  a.q = ctx.input(kQ).as<float>() + p.q.offset;
  a.k = cache_k;
  a.v = cache_v;
  a.out = ctx.output(0).data;
  a.kv_len = position + a.q_len;
  a.offset = position;
  kernels::attention(a, ctx.pool(), scratch);
  return {};
}

constexpr OpDef kOps[] = {
    {.domain = "sprun", .name = "CachedAttention", .inputs = {6, 8}, .infer = infer_cached, .run = run_cached,
     .prepare = prepare_cached},
};

}  // namespace

extern const std::span<const OpDef> k_cached_attention_ops;
const std::span<const OpDef> k_cached_attention_ops = kOps;

}  // namespace sprun::graph
