// sprun.Attention: the node that graph passes make of attention spelled out by exporters.
//
//   out = softmax(cap(scale * Q K^T) + mask) V      per batch and head, K and V heads shared by groups of query heads
//
// Inputs (float32 but for 4; the same value may come several times):
//   0 Q, 1 K, 2 V  in the layouts below; S queries, T keys
//   3 mask         optional; broadcasts to [B, H, S, T]; added, or bool with false = -inf
//   4 key_lengths  optional int32 or int64 [B]: keys at or after it do not exist. Values are clamped to [0, T]
// Attributes (* required): num_heads* H, kv_num_heads (H), head_dim* D, v_head_dim (D), scale (1/sqrt(D)), softcap (0:
// none),
//   causal (0): query i sees key j <= i + causal_offset, causal_offset (T - S)
//   q_layout, k_layout, v_layout ("bshd"):
//     "bshd"  [B, S, heads, dim], or [B, S, W] with head h in columns offset + h*dim ... of every row (W >= what is
//     read) "bhsd"  [B, heads, S, dim] "bhds"  [B, heads, dim, T], K only
//   q_offset, k_offset, v_offset (0): first column, rank 3 only; a packed [B, S, 3*H*D] is given as Q, K and V with
//     offsets 0, H*D and 2*H*D
//   precision ("f32"): "bf16" lets both products round their inputs to bf16 where a kernel does that
//   out_layout ("bshd"): "bshd" makes [B, S, H*v_head_dim], "bhsd" [B, H, S, v_head_dim]
// A row that may see no key gives zeros.
#include "graph/ops/attention_operand.h"
#include "graph/ops/attention_util.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

using kernels::AttentionArgs;

enum Input { kQ, kK, kV, kMask, kLengths };

struct Problem {
  AttentionArgs args;
  AttentionOperand q, k, v;
  bool bhsd_out = false;
};

template <class Ctx>
Status set_options(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  const AttrMap& attrs = ctx.attrs();
  a.scale = attention_scale(node, a.head_dim);
  a.softcap = attrs.get_float("softcap", 0.0F);
  a.bf16_products = attrs.get_string("precision", "f32") == "bf16";
  a.causal = attrs.get_int("causal", 0) != 0;
  a.offset = attrs.get_int("causal_offset", a.kv_len - a.q_len);
  const std::string_view layout = attrs.get_string("out_layout", "bshd");
  p.bhsd_out = layout == "bhsd";
  if (!p.bhsd_out && layout != "bshd") return op_error(node, "unknown out_layout " + std::string(layout));
  a.out_strides = p.bhsd_out ? kernels::bhsd_strides(a.heads, a.q_len, a.v_dim)
                             : kernels::bshd_strides(a.heads, a.q_len, a.v_dim);
  if (ctx.has_input(kMask)) {
    if (is_float(ctx.input(kMask).dtype) && ctx.input(kMask).dtype != DType::kF32) {
      return op_error(node, "the mask must be float32 or bool");
    }
    SPRUN_TRY(set_mask(node, ctx.input(kMask), a.kv_len, a));
  }
  if (!ctx.has_input(kLengths)) return {};
  const ConstTensorView& lengths = ctx.input(kLengths);
  if ((lengths.dtype != DType::kS32 && lengths.dtype != DType::kS64) || !(lengths.shape == Shape{a.batch})) {
    return op_error(node, "key_lengths must be int32 or int64 of shape " + Shape{a.batch}.to_string() + ", got " +
                              lengths.shape.to_string());
  }
  return {};
}

template <class Ctx>
Status describe(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  for (const int i : {kQ, kK, kV}) {
    if (ctx.input(i).dtype != DType::kF32) return op_error(node, "Q, K and V must be float32");
  }
  SPRUN_ASSIGN(a.heads, required_count(node, "num_heads"));
  SPRUN_ASSIGN(a.head_dim, required_count(node, "head_dim"));
  a.kv_heads = ctx.attrs().get_int("kv_num_heads", a.heads);
  a.v_dim = ctx.attrs().get_int("v_head_dim", a.head_dim);
  if (a.kv_heads < 1 || a.heads % a.kv_heads != 0 || a.v_dim < 1 || a.v_dim > (int64_t{1} << 20)) {
    return op_error(node, "kv_num_heads or v_head_dim does not fit num_heads " + std::to_string(a.heads));
  }
  SPRUN_ASSIGN(p.q, read_attention_operand(ctx, kQ, 'q', a.heads, a.head_dim));
  SPRUN_ASSIGN(p.k, read_attention_operand(ctx, kK, 'k', a.kv_heads, a.head_dim));
  SPRUN_ASSIGN(p.v, read_attention_operand(ctx, kV, 'v', a.kv_heads, a.v_dim));
  if (p.k.batch != p.q.batch || p.v.batch != p.q.batch || p.k.rows != p.v.rows) {
    return op_error(node, "Q " + ctx.input(kQ).shape.to_string() + ", K " + ctx.input(kK).shape.to_string() +
                              " and V " + ctx.input(kV).shape.to_string() + " differ in batch or keys");
  }
  a.batch = p.q.batch;
  a.q_len = p.q.rows;
  a.kv_len = p.k.rows;
  a.q_strides = p.q.strides, a.k_strides = p.k.strides, a.v_strides = p.v.strides;
  return set_options(ctx, p);
}

Status infer_fused(InferContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  const AttentionArgs& a = p.args;
  ctx.set_output(0, DType::kF32, p.bhsd_out ? Shape{a.batch, a.heads, a.q_len, a.v_dim}
                                            : Shape{a.batch, a.q_len, a.heads * a.v_dim});
  return {};
}

struct Scratch {
  void* kernel;
  int64_t* lengths;
};

Scratch lay_out(ScratchLayout& layout, const Problem& p, bool has_lengths, int threads) {
  Scratch s{};
  s.kernel = layout.take<char>(kernels::attention_scratch_bytes(p.args, threads));
  s.lengths = layout.take<int64_t>(has_lengths ? p.args.batch : 0);
  return s;
}

Status prepare_fused(PrepareContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  ScratchLayout layout;
  lay_out(layout, p, ctx.has_input(kLengths), ctx.max_threads());
  auto state = std::make_unique<ScratchState>();
  ctx.scratch_bytes = state->scratch_bytes = layout.used();
  ctx.state = std::move(state);
  describe_attention(ctx, p.args);
  return {};
}

Status run_fused(RunContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  AttentionArgs& a = p.args;
  const bool has_lengths = ctx.has_input(kLengths);
  ScratchLayout needed;
  lay_out(needed, p, has_lengths, ctx.pool().num_threads());
  ScratchHolder holder;
  SPRUN_ASSIGN(void* base, holder.get(ctx, needed.used()));
  ScratchLayout layout(base);
  const Scratch s = lay_out(layout, p, has_lengths, ctx.pool().num_threads());
  a.q = ctx.input(kQ).as<float>() + p.q.offset;
  a.k = ctx.input(kK).as<float>() + p.k.offset;
  a.v = ctx.input(kV).as<float>() + p.v.offset;
  a.out = ctx.output(0).data;
  if (has_lengths) {
    const ConstTensorView& lengths = ctx.input(kLengths);
    for (int64_t b = 0; b < a.batch; ++b) {
      s.lengths[b] = lengths.dtype == DType::kS64 ? lengths.as<int64_t>()[b] : lengths.as<int32_t>()[b];
    }
    a.batch_kv_len = s.lengths;
  }
  kernels::attention(a, ctx.pool(), s.kernel);
  return {};
}

constexpr OpDef kOps[] = {
    {.domain = "sprun", .name = "Attention", .inputs = {3, 5}, .infer = infer_fused, .run = run_fused,
     .prepare = prepare_fused},
};

}  // namespace

extern const std::span<const OpDef> k_fused_attention_ops;
const std::span<const OpDef> k_fused_attention_ops = kOps;

}  // namespace sprun::graph
