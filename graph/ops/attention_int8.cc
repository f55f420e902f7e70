// sprun.AttentionInt8: attention of statically quantised graphs, made by graph passes. Both products take 8-bit codes
// and sum in int32; the softmax is float32, and its result is quantised in between (kernels/attention/attention_int8.h
// has the formula).
//
// Inputs: 0 Q, 1 K, 2 V  uint8 or int8, in the layouts of sprun.Attention (fused_attention.cc)
//         3 mask         optional; broadcasts to [B, H, S, T]; added float32, or bool with false = -inf
// Attributes (* required): those of sprun.Attention for sizes, scale, layouts and offsets, and
//   q_scale*, k_scale*, v_scale*, p_scale*; q_zero, k_zero, v_zero, p_zero (0): scales and zero points of the codes; p is
//   the softmax's result, in codes of uint8, or of int8 with p_signed
//   y_scale: given if the output is codes too, with y_zero (0), y_signed (0); else it is float32
#include "graph/ops/attention_operand.h"
#include "graph/ops/attention_util.h"
#include "graph/ops/op_util.h"
#include "kernels/attention/attention_int8.h"

namespace sprun::graph {
namespace {

using kernels::AttentionArgs;
using kernels::AttentionInt8Args;

enum Input { kQ, kK, kV, kMask };

bool is_byte(DType dtype) { return dtype == DType::kU8 || dtype == DType::kS8; }

Status read_codes(const Node& node, char name, DType dtype, kernels::CodeParams& params) {
  const std::string prefix(1, name);
  params.scale = node.attrs.get_float(prefix + "_scale", 0.0F);
  const int64_t zero = node.attrs.get_int(prefix + "_zero", 0), low = dtype == DType::kS8 ? -128 : 0;
  params.dtype = dtype;
  params.zero = static_cast<int32_t>(zero);
  if (params.scale > 0 && zero >= low && zero <= low + 255) return {};
  return op_error(node, prefix + "_scale must be positive and " + prefix + "_zero a code");
}

DType code_type(const Node& node, char name) {
  return node.attrs.get_int(std::string(1, name) + "_signed", 0) != 0 ? DType::kS8 : DType::kU8;
}

struct Problem {
  AttentionInt8Args args;
  AttentionOperand q, k, v;
  bool bhsd_out = false;
};

template <class Ctx>
Status read_quantisation(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  for (const int i : {kQ, kK, kV}) {
    if (!is_byte(ctx.input(i).dtype)) return op_error(node, "Q, K and V must be uint8 or int8");
  }
  SPRUN_TRY(read_codes(node, 'q', ctx.input(kQ).dtype, p.args.q));
  SPRUN_TRY(read_codes(node, 'k', ctx.input(kK).dtype, p.args.k));
  SPRUN_TRY(read_codes(node, 'v', ctx.input(kV).dtype, p.args.v));
  SPRUN_TRY(read_codes(node, 'p', code_type(node, 'p'), p.args.p));
  p.args.requantise = node.attrs.has("y_scale");
  return p.args.requantise ? read_codes(node, 'y', code_type(node, 'y'), p.args.y) : Status();
}

template <class Ctx>
Status describe(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args.shape;
  SPRUN_TRY(read_quantisation(ctx, p));
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
  a.batch = p.q.batch, a.q_len = p.q.rows, a.kv_len = p.k.rows;
  a.q_strides = p.q.strides, a.k_strides = p.k.strides, a.v_strides = p.v.strides;
  a.scale = attention_scale(node, a.head_dim);
  const std::string_view layout = ctx.attrs().get_string("out_layout", "bshd");
  p.bhsd_out = layout == "bhsd";
  if (!p.bhsd_out && layout != "bshd") return op_error(node, "unknown out_layout " + std::string(layout));
  a.out_strides = p.bhsd_out ? kernels::bhsd_strides(a.heads, a.q_len, a.v_dim)
                             : kernels::bshd_strides(a.heads, a.q_len, a.v_dim);
  if (!ctx.has_input(kMask)) return {};
  const DType mask = ctx.input(kMask).dtype;
  if (mask != DType::kF32 && mask != DType::kBool) return op_error(node, "the mask must be float32 or bool");
  return set_mask(node, ctx.input(kMask), a.kv_len, a);
}

bool fits_kernels(const AttentionArgs& a) {
  return a.head_dim <= AttentionInt8Args::kMaxSum && a.kv_len <= AttentionInt8Args::kMaxSum;
}

Status infer_attention(InferContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  const AttentionArgs& a = p.args.shape;
  ctx.set_output(0, p.args.requantise ? p.args.y.dtype : DType::kF32,
                 p.bhsd_out ? Shape{a.batch, a.heads, a.q_len, a.v_dim} : Shape{a.batch, a.q_len, a.heads * a.v_dim});
  return {};
}

Status prepare_attention(PrepareContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  ctx.flops = kernels::attention_flops(p.args.shape);
  ctx.regime = "compute-bound";
  if (!fits_kernels(p.args.shape)) {
    ctx.kernel = "attention_int8_ref";
    ctx.rejected.push_back({"attention_int8", "sums are longer than " + std::to_string(AttentionInt8Args::kMaxSum)});
    return {};
  }
  std::vector<kernels::Rejection> why_not;
  ctx.kernel = kernels::attention_int8_kernel_name(p.args, &why_not);
  for (const kernels::Rejection& rejection : why_not) ctx.rejected.push_back({rejection.kernel, rejection.reason});
  auto state = std::make_unique<ScratchState>();
  ctx.scratch_bytes = state->scratch_bytes = kernels::attention_int8_scratch_bytes(p.args, ctx.max_threads());
  ctx.state = std::move(state);
  return {};
}

Status run_attention(RunContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  AttentionArgs& a = p.args.shape;
  a.q = ctx.input(kQ).as<uint8_t>() + p.q.offset;
  a.k = ctx.input(kK).as<uint8_t>() + p.k.offset;
  a.v = ctx.input(kV).as<uint8_t>() + p.v.offset;
  a.out = ctx.output(0).data;
  if (!fits_kernels(a)) {
    kernels::attention_int8_reference(p.args, ctx.pool());
    return {};
  }
  ScratchHolder holder;
  SPRUN_ASSIGN(void* scratch, holder.get(ctx, kernels::attention_int8_scratch_bytes(p.args, ctx.pool().num_threads())));
  kernels::attention_int8(p.args, ctx.pool(), scratch);
  return {};
}

constexpr OpDef kOps[] = {
    {.domain = "sprun", .name = "AttentionInt8", .inputs = {3, 4}, .infer = infer_attention, .run = run_attention,
     .prepare = prepare_attention},
};

}  // namespace

extern const std::span<const OpDef> k_attention_int8_ops;
const std::span<const OpDef> k_attention_int8_ops = kOps;

}  // namespace sprun::graph
