// com.microsoft MultiHeadAttention: separate or packed Q, K and V, their biases, a cache and masks.
#include <algorithm>
#include <limits>

#include "graph/ops/attention_util.h"
#include "graph/ops/contrib_mask.h"
#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

using kernels::AttentionArgs;
using kernels::AttentionStrides;

enum Input { kQuery, kKey, kValue, kBias, kPadding, kScoreBias, kPastKey, kPastValue, kPastLength, kIndirection };
enum Output { kOut, kPresentKey, kPresentValue, kScores };

enum class Form : uint8_t {
  kSeparate,   // query [B, S, H*D], key [B, L, H*D], value [B, L, H*Dv]
  kPackedQkv,  // query [B, S, H, 3, D]
  kPackedKv,   // query [B, S, H*D], key [B, L, H, 2, D]
  kCross,      // query [B, S, H*D], key and value [B, H, L, D] of an encoder
};

// One of Q, K and V as the caller gives it.
struct Source {
  int input = kQuery;     // which input holds it
  int64_t offset = 0;     // elements from the start of that input
  AttentionStrides strides;
  int64_t bias = -1;      // first element in the bias input; -1: none is added
};

struct Problem {
  AttentionArgs args;
  PaddingMask mask;
  Form form = Form::kSeparate;
  Source q, k, v;
  int64_t past = 0, fresh = 0;
  bool has_past = false;
};

template <class Ctx>
Result<Form> find_form(const Ctx& ctx) {
  const Node& node = ctx.node();
  const Shape& q = ctx.input(kQuery).shape;
  if (q.rank() == 5 && !ctx.has_input(kKey) && !ctx.has_input(kValue)) return Form::kPackedQkv;
  if (q.rank() != 3 || !ctx.has_input(kKey)) {
    return op_error(node, "query " + q.to_string() + " must be [B, S, hidden] with a key, or packed [B, S, H, 3, D]");
  }
  const Shape& k = ctx.input(kKey).shape;
  if (k.rank() == 5 && !ctx.has_input(kValue)) return Form::kPackedKv;
  if (!ctx.has_input(kValue) || (k.rank() != 3 && k.rank() != 4) || ctx.input(kValue).shape.rank() != k.rank()) {
    return op_error(node, "key " + k.to_string() + " and value do not fit each other");
  }
  return k.rank() == 3 ? Form::kSeparate : Form::kCross;
}

// Heads, lengths and head sizes; every shape is checked against them.
template <class Ctx>
Status set_sizes(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  const Shape& q = ctx.input(kQuery).shape;
  SPRUN_ASSIGN(a.heads, required_count(node, "num_heads"));
  a.kv_heads = a.heads;
  a.batch = q[0], a.q_len = q[1];
  bool fits = true;
  if (p.form == Form::kPackedQkv) {
    fits = q[2] == a.heads && q[3] == 3;
    a.head_dim = a.v_dim = q[4];
    p.fresh = a.q_len;
  } else {
    SPRUN_ASSIGN(a.head_dim, head_size(node, q[2], a.heads, "query"));
    const Shape& k = ctx.input(kKey).shape;
    if (p.form == Form::kPackedKv) {
      a.v_dim = a.head_dim;
      p.fresh = k[1];
      fits = k == Shape{a.batch, p.fresh, a.heads, 2, a.head_dim};
    } else if (p.form == Form::kSeparate) {
      const Shape& v = ctx.input(kValue).shape;
      SPRUN_ASSIGN(a.v_dim, head_size(node, v[2], a.heads, "value"));
      p.fresh = k[1];
      fits = k == Shape{a.batch, p.fresh, q[2]} && v[0] == a.batch && v[1] == p.fresh;
    } else {
      const Shape& v = ctx.input(kValue).shape;
      a.v_dim = v[3];
      p.fresh = k[2];
      fits = k == Shape{a.batch, a.heads, p.fresh, a.head_dim} && v == Shape{a.batch, a.heads, p.fresh, a.v_dim};
    }
  }
  if (!fits) return op_error(node, "query " + q.to_string() + " does not fit key, value and num_heads");
  return {};
}

void set_sources(Problem& p) {
  const AttentionArgs& a = p.args;
  const int64_t hidden = a.heads * a.head_dim;
  p.q.strides = kernels::bshd_strides(a.heads, a.q_len, a.head_dim);
  p.q.bias = 0, p.k.bias = hidden, p.v.bias = 2 * hidden;
  switch (p.form) {
    case Form::kPackedQkv:
      p.q.strides = p.k.strides = p.v.strides = {a.q_len * 3 * hidden, 3 * a.head_dim, 3 * hidden};
      p.k.offset = a.head_dim, p.v.offset = 2 * a.head_dim;
      break;
    case Form::kPackedKv:
      p.k.input = p.v.input = kKey;
      p.k.strides = p.v.strides = {p.fresh * 2 * hidden, 2 * a.head_dim, 2 * hidden};
      p.v.offset = a.head_dim;
      break;
    case Form::kSeparate:
      p.k.input = kKey, p.v.input = kValue;
      p.k.strides = kernels::bshd_strides(a.heads, p.fresh, a.head_dim);
      p.v.strides = kernels::bshd_strides(a.heads, p.fresh, a.v_dim);
      break;
    case Form::kCross:  // projected, with bias, when the encoder ran
      p.k.input = kKey, p.v.input = kValue;
      p.k.strides = kernels::bhsd_strides(a.heads, p.fresh, a.head_dim);
      p.v.strides = kernels::bhsd_strides(a.heads, p.fresh, a.v_dim);
      p.k.bias = p.v.bias = -1;
      break;
  }
}

template <class Ctx>
Status set_past(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  if (ctx.has_input(kPastLength) || ctx.has_input(kIndirection)) {
    return op_error(node, "past_sequence_length and cache_indirection are not supported");
  }
  p.has_past = ctx.has_input(kPastKey);
  if (p.has_past != ctx.has_input(kPastValue)) return op_error(node, "past_key and past_value must be given together");
  if (p.has_past) {
    const Shape &key = ctx.input(kPastKey).shape, &value = ctx.input(kPastValue).shape;
    p.past = key.rank() == 4 ? key[2] : 0;
    if (!(key == Shape{a.batch, a.heads, p.past, a.head_dim}) || !(value == Shape{a.batch, a.heads, p.past, a.v_dim})) {
      return op_error(node, "past_key " + key.to_string() + " or past_value " + value.to_string() +
                                " is not [batch, heads, past, head_size]");
    }
  }
  a.offset = p.past;
  a.kv_len = p.past + p.fresh;
  return {};
}

template <class Ctx>
Status check_types(const Ctx& ctx, const Problem& p) {
  const Node& node = ctx.node();
  const DType type = ctx.input(kQuery).dtype;
  if (!is_float(type)) return op_error(node, "expected float data, got " + std::string(dtype_name(type)));
  for (const int i : {kKey, kValue, kBias, kPastKey, kPastValue}) {
    if (ctx.has_input(i) && ctx.input(i).dtype != type) {
      return op_error(node, "input " + std::to_string(i) + " does not have the type of the query");
    }
  }
  const int64_t width = p.args.heads * (2 * p.args.head_dim + p.args.v_dim);
  if (ctx.has_input(kBias) && !(ctx.input(kBias).shape == Shape{width})) {
    return op_error(node, "bias " + ctx.input(kBias).shape.to_string() + ", expected " + Shape{width}.to_string());
  }
  return {};
}

template <class Ctx>
Status describe(const Ctx& ctx, Problem& p) {
  AttentionArgs& a = p.args;
  SPRUN_ASSIGN(p.form, find_form(ctx));
  SPRUN_TRY(set_sizes(ctx, p));
  SPRUN_TRY(set_past(ctx, p));
  SPRUN_TRY(check_types(ctx, p));
  set_sources(p);
  if (!ctx.has_input(kBias)) p.q.bias = p.k.bias = p.v.bias = -1;
  a.dtype = a.v_dtype = ctx.input(kQuery).dtype;
  a.scale = attention_scale(ctx.node(), a.head_dim);
  a.causal = ctx.attrs().get_int("unidirectional", 0) != 0;
  a.frontier_fill = std::numeric_limits<float>::lowest();
  if (ctx.node().output(kScores) != kNoValue) a.score_output = kernels::ScoreOutput::kBiased;
  SPRUN_ASSIGN(p.mask, PaddingMask::from(ctx, kPadding, kScoreBias, p.past, a));
  // Biased operands are made dense first, [B, S, H, D].
  const auto where = [&](const Source& s, int64_t rows, int64_t dim) {
    return s.bias < 0 ? s.strides : kernels::bshd_strides(a.heads, rows, dim);
  };
  a.q_strides = where(p.q, a.q_len, a.head_dim);
  a.k_strides = p.has_past ? kernels::bhsd_strides(a.heads, a.kv_len, a.head_dim) : where(p.k, p.fresh, a.head_dim);
  a.v_strides = p.has_past ? kernels::bhsd_strides(a.heads, a.kv_len, a.v_dim) : where(p.v, p.fresh, a.v_dim);
  a.out_strides = kernels::bshd_strides(a.heads, a.q_len, a.v_dim);
  return {};
}

Status infer_mha(InferContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  const AttentionArgs& a = p.args;
  ctx.set_output(kOut, a.dtype, {a.batch, a.q_len, a.heads * a.v_dim});
  ctx.set_output(kPresentKey, a.dtype, {a.batch, a.heads, a.kv_len, a.head_dim});
  ctx.set_output(kPresentValue, a.dtype, {a.batch, a.heads, a.kv_len, a.v_dim});
  ctx.set_output(kScores, a.dtype, {a.batch, a.heads, a.q_len, a.kv_len});
  return {};
}

struct Scratch {
  void* kernel;
  float* mask;
  char *q, *k, *v;                    // with bias added
  char *present_key, *present_value;  // when they are needed and are no outputs
};

template <class Ctx>
Scratch lay_out(const Ctx& ctx, ScratchLayout& layout, const Problem& p, int threads) {
  const AttentionArgs& a = p.args;
  const int64_t size = dtype_size(a.dtype);
  const int64_t q_row = a.batch * a.heads * a.head_dim * size, v_row = a.batch * a.heads * a.v_dim * size;
  Scratch s{};
  s.kernel = layout.take<char>(kernels::attention_scratch_bytes(a, threads));
  s.mask = layout.take<float>(p.mask.scratch_floats());
  s.q = layout.take<char>(p.q.bias < 0 ? 0 : q_row * a.q_len);
  s.k = layout.take<char>(p.k.bias < 0 ? 0 : q_row * p.fresh);
  s.v = layout.take<char>(p.v.bias < 0 ? 0 : v_row * p.fresh);
  const auto spare = [&](int output, int64_t row) {
    return p.has_past && ctx.node().output(static_cast<size_t>(output)) == kNoValue ? row * a.kv_len : 0;
  };
  s.present_key = layout.take<char>(spare(kPresentKey, q_row));
  s.present_value = layout.take<char>(spare(kPresentValue, v_row));
  return s;
}

Status prepare_mha(PrepareContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  ScratchLayout layout;
  lay_out(ctx, layout, p, ctx.max_threads());
  auto state = std::make_unique<ScratchState>();
  ctx.scratch_bytes = state->scratch_bytes = layout.used();
  ctx.state = std::move(state);
  describe_attention(ctx, p.args);
  return {};
}

// y[b, s, h, :] = x(b, h, s) + bias[h, :]
template <class T>
void add_bias(ThreadPool& pool, const T* x, const AttentionStrides& xs, const T* bias, int64_t batch, int64_t rows,
              int64_t heads, int64_t dim, T* y) {
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, heads * dim));
  pool.parallel_for(batch * rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const T* from = x + t / rows * xs.batch + h * xs.head + t % rows * xs.row;
        T* to = y + (t * heads + h) * dim;
        for (int64_t d = 0; d < dim; ++d) to[d] = store<T>(load(from[d]) + load(bias[h * dim + d]));
      }
    }
  });
}

// The pointer to Q, K or V, after its bias.
Result<const void*> operand(RunContext& ctx, const AttentionArgs& a, const Source& s, int64_t rows, int64_t dim,
                            void* spare) {
  const ConstTensorView& in = ctx.input(s.input);
  const void* from = static_cast<const char*>(in.data) + s.offset * dtype_size(a.dtype);
  if (s.bias < 0) return from;
  SPRUN_TRY(dispatch_real(ctx, a.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    add_bias(ctx.pool(), static_cast<const T*>(from), s.strides, ctx.input(kBias).as<T>() + s.bias, a.batch, rows,
             a.heads, dim, static_cast<T*>(spare));
    return Status();
  }));
  return static_cast<const void*>(spare);
}

// Fills the cache if there is one and returns where the kernel reads.
const void* make_cache(RunContext& ctx, const Problem& p, bool is_key, const void* fresh, void* spare) {
  const AttentionArgs& a = p.args;
  const int output = is_key ? kPresentKey : kPresentValue;
  if (!p.has_past && !ctx.has_output(output)) return fresh;
  void* dst = ctx.has_output(output) ? ctx.output(output).data : spare;
  const void* past = p.has_past ? ctx.input(is_key ? kPastKey : kPastValue).data : nullptr;
  const Source& source = is_key ? p.k : p.v;
  const int64_t dim = is_key ? a.head_dim : a.v_dim;
  const AttentionStrides strides = source.bias < 0 ? source.strides : kernels::bshd_strides(a.heads, p.fresh, dim);
  append_to_cache(ctx.pool(), {a.batch, a.heads, p.past, p.fresh, dim, a.dtype, past, fresh, strides, dst});
  return p.has_past ? dst : fresh;
}

Status run_mha(RunContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  AttentionArgs& a = p.args;
  ScratchLayout needed;
  lay_out(ctx, needed, p, ctx.pool().num_threads());
  ScratchHolder holder;
  SPRUN_ASSIGN(void* base, holder.get(ctx, needed.used()));
  ScratchLayout layout(base);
  const Scratch s = lay_out(ctx, layout, p, ctx.pool().num_threads());
  SPRUN_ASSIGN(a.q, operand(ctx, a, p.q, a.q_len, a.head_dim, s.q));
  SPRUN_ASSIGN(const void* k, operand(ctx, a, p.k, p.fresh, a.head_dim, s.k));
  SPRUN_ASSIGN(const void* v, operand(ctx, a, p.v, p.fresh, a.v_dim, s.v));
  a.k = make_cache(ctx, p, true, k, s.present_key);
  a.v = make_cache(ctx, p, false, v, s.present_value);
  p.mask.apply(s.mask, a);
  a.out = ctx.output(kOut).data;
  if (ctx.has_output(kScores)) a.scores = ctx.output(kScores).data;
  kernels::attention(a, ctx.pool(), s.kernel);
  return {};
}

constexpr OpDef kOps[] = {
    {.domain = "com.microsoft", .name = "MultiHeadAttention", .inputs = {1, 10}, .outputs = {1, 4}, .infer = infer_mha,
     .run = run_mha, .prepare = prepare_mha},
};

}  // namespace

extern const std::span<const OpDef> k_contrib_mha_ops;
const std::span<const OpDef> k_contrib_mha_ops = kOps;

}  // namespace sprun::graph
