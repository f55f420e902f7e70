// com.microsoft GroupQueryAttention: rotary embedding, cache update and grouped attention of a decoder in one node.
#include <algorithm>
#include <cstring>
#include <string>

#include "graph/ops/attention_util.h"
#include "graph/ops/op_util.h"
#include "kernels/rope/rope.h"

namespace sprun::graph {
namespace {

using kernels::AttentionArgs;
using kernels::AttentionStrides;

enum Input {
  kQuery, kKey, kValue, kPastKey, kPastValue, kSeqlensK, kTotal, kCos, kSin, kPositions, kScoreBias, kHeadSink,
  kKScale, kVScale, kQNorm, kKNorm, kQuerySeqlens
};
enum Output { kOut, kPresentKey, kPresentValue, kScores };

struct Problem {
  AttentionArgs args;
  bool packed = false, has_past = false, rotary = false, has_sink = false;
  int64_t past_rows = 0;   // rows of the past buffers
  int64_t total = -1;      // total_sequence_length; -1 while unknown
  int64_t cache_rows = 0;  // rows of the present buffers
  int64_t rotary_dim = 0, table_rows = 0;
  AttentionStrides q_in, kv_in;  // of the new rows as given
  int64_t hidden() const { return args.heads * args.head_dim; }
  int64_t kv_hidden() const { return args.kv_heads * args.head_dim; }
};

template <class Ctx>
Status refuse_extensions(const Ctx& ctx) {
  const Node& node = ctx.node();
  if (ctx.attrs().get_int("sliding_window_cache", 0) != 0)
    return op_error(node, "sliding_window_cache is not supported");
  for (const char* name : {"k_quant_type", "v_quant_type"}) {
    const std::string_view type = ctx.attrs().get_string(name, "NONE");
    if (!type.empty() && type != "NONE") return op_error(node, "a quantised cache is not supported");
  }
  if (ctx.has_input(kKScale) || ctx.has_input(kVScale)) return op_error(node, "a quantised cache is not supported");
  if (ctx.has_input(kQNorm) || ctx.has_input(kKNorm))
    return op_error(node, "norm weights of Q and K are not supported");
  return {};
}

template <class Ctx>
Status set_sizes(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  const Shape& q = ctx.input(kQuery).shape;
  if (q.rank() != 3 || !is_float(ctx.input(kQuery).dtype) || ctx.has_input(kKey) != ctx.has_input(kValue)) {
    return op_error(node, "query must be a float tensor [B, S, hidden], with key and value or packed with them, got " +
                              q.to_string());
  }
  SPRUN_ASSIGN(a.heads, required_count(node, "num_heads"));
  SPRUN_ASSIGN(a.kv_heads, required_count(node, "kv_num_heads"));
  if (a.heads % a.kv_heads != 0) return op_error(node, "num_heads is not a multiple of kv_num_heads");
  a.batch = q[0], a.q_len = q[1];
  p.packed = !ctx.has_input(kKey);
  SPRUN_ASSIGN(a.head_dim, head_size(node, q[2], p.packed ? a.heads + 2 * a.kv_heads : a.heads, "query"));
  a.v_dim = a.head_dim;
  const Shape fresh{a.batch, a.q_len, p.kv_hidden()};
  if (!p.packed && (!(ctx.input(kKey).shape == fresh) || !(ctx.input(kValue).shape == fresh))) {
    return op_error(node, "key " + ctx.input(kKey).shape.to_string() + " and value " +
                              ctx.input(kValue).shape.to_string() + ", expected " + fresh.to_string());
  }
  a.dtype = a.v_dtype = ctx.input(kQuery).dtype;
  for (const int i : {kKey, kValue, kPastKey, kPastValue, kCos, kSin, kScoreBias, kHeadSink}) {
    if (ctx.has_input(i) && ctx.input(i).dtype != a.dtype) {
      return op_error(node, "input " + std::to_string(i) + " does not have the type of the query");
    }
  }
  const int64_t row = p.packed ? p.hidden() + 2 * p.kv_hidden() : 0;
  p.q_in =
      p.packed ? AttentionStrides{a.q_len * row, a.head_dim, row} : kernels::bshd_strides(a.heads, a.q_len, a.head_dim);
  p.kv_in = p.packed ? p.q_in : kernels::bshd_strides(a.kv_heads, a.q_len, a.head_dim);
  return {};
}

template <class Ctx>
Status set_cache(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  p.has_past = ctx.has_input(kPastKey);
  if (p.has_past != ctx.has_input(kPastValue)) return op_error(node, "past_key and past_value must be given together");
  if (p.has_past) {
    const Shape& key = ctx.input(kPastKey).shape;
    p.past_rows = key.rank() == 4 ? key[2] : 0;
    if (!(key == Shape{a.batch, a.kv_heads, p.past_rows, a.head_dim}) || !(ctx.input(kPastValue).shape == key)) {
      return op_error(node, "past_key " + key.to_string() + " is not [batch, kv_heads, rows, head_size]");
    }
  }
  if (!ctx.has_input(kSeqlensK) || ctx.input(kSeqlensK).dtype != DType::kS32 ||
      ctx.input(kSeqlensK).num_elements() != a.batch) {
    return op_error(node, "seqlens_k must be int32 with one element a batch");
  }
  const ConstTensorView total = ctx.has_input(kTotal) ? ctx.input(kTotal) : ConstTensorView{};
  if (total.dtype != DType::kS32 || total.num_elements() != 1) {
    return op_error(node, "total_sequence_length must be one int32");
  }
  if (total.data != nullptr) {
    p.total = *total.as<int32_t>();
    if (p.total < a.q_len || p.total > p.past_rows + a.q_len) {
      return op_error(node, "total_sequence_length " + std::to_string(p.total) + " does not fit " +
                                std::to_string(p.past_rows) + " cached and " + std::to_string(a.q_len) + " new rows");
    }
    p.cache_rows = std::max(p.total, p.past_rows);
  }
  if (ctx.has_input(kQuerySeqlens) && (ctx.input(kQuerySeqlens).dtype != DType::kS32 ||
                                       !(ctx.input(kQuerySeqlens).shape == Shape{a.batch}))) {
    return op_error(node, "query_seqlens must be int32 with one element a batch");
  }
  return {};
}

template <class Ctx>
Status set_rotary(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  p.rotary = ctx.attrs().get_int("do_rotary", 0) != 0;
  if (!p.rotary) return {};
  if (!ctx.has_input(kCos) || !ctx.has_input(kSin)) return op_error(node, "do_rotary needs cos_cache and sin_cache");
  const Shape& cos = ctx.input(kCos).shape;
  if (cos.rank() != 2 || !(ctx.input(kSin).shape == cos) || 2 * cos[1] > p.args.head_dim) {
    return op_error(node, "cos_cache " + cos.to_string() + " and sin_cache " + ctx.input(kSin).shape.to_string() +
                              " do not fit head size " + std::to_string(p.args.head_dim));
  }
  p.table_rows = cos[0];
  p.rotary_dim = 2 * cos[1];
  if (ctx.has_input(kPositions) && (ctx.input(kPositions).dtype != DType::kS64 ||
                                    !(ctx.input(kPositions).shape == Shape{p.args.batch, p.args.q_len}))) {
    return op_error(node, "position_ids must be int64 [batch, sequence]");
  }
  return {};
}

template <class Ctx>
Status set_scores(const Ctx& ctx, Problem& p) {
  const Node& node = ctx.node();
  AttentionArgs& a = p.args;
  const AttrMap& attrs = ctx.attrs();
  a.scale = attention_scale(node, a.head_dim);
  a.softcap = attrs.get_float("softcap", 0.0F);
  a.causal = attrs.get_int("causal", 1) != 0;
  // The window counts the query itself.
  const int64_t window = attrs.get_int("local_window_size", -1);
  a.left_window = window > 0 ? window - 1 : -1;
  p.has_sink = ctx.has_input(kHeadSink) || attrs.get_int("smooth_softmax", 0) == 1;
  if (ctx.has_input(kHeadSink) && !(ctx.input(kHeadSink).shape == Shape{a.heads})) {
    return op_error(node, "head_sink must have one element a head");
  }
  const int64_t stage = attrs.get_int("qk_output", 0);
  if (node.output(kScores) != kNoValue) {
    if (stage != 1 && stage != 2) return op_error(node, "output_qk needs qk_output 1 or 2");
    a.score_output = stage == 1 ? kernels::ScoreOutput::kCapped : kernels::ScoreOutput::kProbabilities;
  }
  if (p.total < 0) return {};
  a.kv_len = p.total;
  return ctx.has_input(kScoreBias) ? set_mask(node, ctx.input(kScoreBias), p.total, a) : Status();
}

// Everything but pointers. Sizes that follow from total_sequence_length are missing while that is unknown.
template <class Ctx>
Status describe(const Ctx& ctx, Problem& p) {
  AttentionArgs& a = p.args;
  SPRUN_TRY(refuse_extensions(ctx));
  SPRUN_TRY(set_sizes(ctx, p));
  SPRUN_TRY(set_cache(ctx, p));
  SPRUN_TRY(set_rotary(ctx, p));
  SPRUN_TRY(set_scores(ctx, p));
  a.q_strides = p.rotary ? kernels::bshd_strides(a.heads, a.q_len, a.head_dim) : p.q_in;
  a.k_strides = a.v_strides = kernels::bhsd_strides(a.kv_heads, p.cache_rows, a.head_dim);
  a.out_strides = kernels::bshd_strides(a.heads, a.q_len, a.head_dim);
  return {};
}

Status infer_gqa(InferContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  const AttentionArgs& a = p.args;
  ctx.set_output(kOut, a.dtype, {a.batch, a.q_len, p.hidden()});
  if (p.total < 0 && (ctx.has_output(kPresentKey) || ctx.has_output(kPresentValue) || ctx.has_output(kScores))) {
    return ctx.needs_data();
  }
  ctx.set_output(kPresentKey, a.dtype, {a.batch, a.kv_heads, p.cache_rows, a.head_dim});
  ctx.set_output(kPresentValue, a.dtype, {a.batch, a.kv_heads, p.cache_rows, a.head_dim});
  ctx.set_output(kScores, a.dtype, {a.batch, a.heads, a.q_len, p.total});
  return {};
}

struct Scratch {
  void* kernel;
  int64_t *past, *kv_len;  // [batch] cached rows, and rows after this step
  int64_t* positions;      // [batch, S] rows of the rotary tables
  float* sink;
  char *q, *k, *v;         // rotated queries; caches that are no outputs
};

Scratch lay_out(ScratchLayout& layout, const Node& node, const Problem& p, int threads) {
  const AttentionArgs& a = p.args;
  const int64_t size = dtype_size(a.dtype);
  Scratch s{};
  s.kernel = layout.take<char>(kernels::attention_scratch_bytes(a, threads));
  s.past = layout.take<int64_t>(a.batch);
  s.kv_len = layout.take<int64_t>(a.batch);
  s.positions = layout.take<int64_t>(p.rotary ? a.batch * a.q_len : 0);
  s.sink = layout.take<float>(p.has_sink ? a.heads : 0);
  s.q = layout.take<char>(p.rotary ? a.batch * a.q_len * p.hidden() * size : 0);
  const int64_t cache = a.batch * p.kv_hidden() * p.cache_rows * size;
  s.k = layout.take<char>(node.output(kPresentKey) != kNoValue ? 0 : cache);
  s.v = layout.take<char>(node.output(kPresentValue) != kNoValue ? 0 : cache);
  return s;
}

Status prepare_gqa(PrepareContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  if (p.total < 0 && ctx.node().output(kPresentKey) != kNoValue) {
    p.args.kv_len = p.cache_rows = ctx.output(kPresentKey).shape.rank() == 4 ? ctx.output(kPresentKey).shape[2] : 0;
  }
  ScratchLayout layout;
  lay_out(layout, ctx.node(), p, ctx.max_threads());
  auto state = std::make_unique<ScratchState>();
  ctx.scratch_bytes = state->scratch_bytes = layout.used();
  ctx.state = std::move(state);
  describe_attention(ctx, p.args);
  return {};
}

// Rows cached before this step and after it, for every batch.
Status read_lengths(RunContext& ctx, const Problem& p, const Scratch& s) {
  const AttentionArgs& a = p.args;
  const auto* last = ctx.input(kSeqlensK).as<int32_t>();
  const int32_t* valid = ctx.has_input(kQuerySeqlens) ? ctx.input(kQuerySeqlens).as<int32_t>() : nullptr;
  for (int64_t b = 0; b < a.batch; ++b) {
    const int64_t total = int64_t{last[b]} + 1;
    const int64_t rows = valid ? valid[b] : std::min(a.q_len, total);
    if (total < 0 || total > p.total || rows < 0 || rows > std::min(a.q_len, total) || total - rows > p.past_rows) {
      return ctx.error("seqlens_k[" + std::to_string(b) + "] is " + std::to_string(last[b]) + " with " +
                       std::to_string(a.q_len) + " new and " + std::to_string(p.past_rows) +
                       " cached rows and total_sequence_length " + std::to_string(p.total));
    }
    s.past[b] = total - rows;
    s.kv_len[b] = total;
  }
  return {};
}

Status read_positions(RunContext& ctx, const Problem& p, const Scratch& s) {
  const AttentionArgs& a = p.args;
  const int64_t* ids = ctx.has_input(kPositions) ? ctx.input(kPositions).as<int64_t>() : nullptr;
  const bool first_prompt = a.q_len == p.total;  // then only the first id counts
  for (int64_t t = 0; t < a.batch * a.q_len; ++t) {
    const int64_t i = t % a.q_len;
    const int64_t row = ids == nullptr ? s.past[t / a.q_len] + i : first_prompt ? ids[0] + i : ids[t];
    if (row < 0 || row >= p.table_rows) {
      return ctx.error("position " + std::to_string(row) + " is outside the rotary tables of " +
                       std::to_string(p.table_rows) + " rows");
    }
    s.positions[t] = row;
  }
  return {};
}

// One of the caches: cached rows, then the new ones (rotated if `tables`), then zeros. Past and present may be the same
// memory, and then only the new rows are written.
void fill_cache(RunContext& ctx, const Problem& p, const Scratch& s, const void* past, const void* fresh, bool rotate,
                char* dst) {
  const AttentionArgs& a = p.args;
  const int64_t size = dtype_size(a.dtype), row = a.head_dim * size;
  const int64_t past_head = p.past_rows * row, head = p.cache_rows * row;
  for (int64_t b = 0; b < a.batch; ++b) {
    const int64_t cached = s.past[b], rows = std::min(a.q_len, p.cache_rows - cached);
    char* to = dst + b * a.kv_heads * head;
    const char* from = static_cast<const char*>(fresh) + b * p.kv_in.batch * size;
    if (rotate) {
      kernels::RopeArgs r{.heads = a.kv_heads, .rows = rows, .dim = a.head_dim, .rotary_dim = p.rotary_dim,
                          .interleaved = ctx.attrs().get_int("rotary_interleaved", 0) != 0, .dtype = a.dtype};
      r.x = from, r.x_strides = p.kv_in;
      r.y = to + cached * row, r.y_strides = a.k_strides;
      r.cos = ctx.input(kCos).data, r.sin = ctx.input(kSin).data;
      r.positions = s.positions + b * a.q_len;
      kernels::rope(r, ctx.pool());
    } else {
      copy_rows(ctx.pool(), {1, a.kv_heads, rows, a.head_dim, a.dtype, from, p.kv_in, to + cached * row, a.k_strides});
    }
    if (past == dst) continue;
    const char* old = static_cast<const char*>(past) + b * a.kv_heads * past_head;
    ctx.pool().parallel_for(a.kv_heads, std::max<int64_t>(1, 65536 / std::max<int64_t>(1, head)),
                            [&](int64_t begin, int64_t end, int) {
      for (int64_t h = begin; h < end; ++h) {
        char* cache = to + h * head;
        if (cached > 0) std::memcpy(cache, old + h * past_head, static_cast<size_t>(cached * row));
        std::memset(cache + (cached + rows) * row, 0, static_cast<size_t>((p.cache_rows - cached - rows) * row));
      }
    });
  }
}

void rotate_queries(RunContext& ctx, const Problem& p, const Scratch& s) {
  const AttentionArgs& a = p.args;
  kernels::RopeArgs r{.batch = a.batch, .heads = a.heads, .rows = a.q_len, .dim = a.head_dim,
                      .rotary_dim = p.rotary_dim,
                      .interleaved = ctx.attrs().get_int("rotary_interleaved", 0) != 0, .dtype = a.dtype};
  r.x = ctx.input(kQuery).data, r.x_strides = p.q_in;
  r.y = s.q, r.y_strides = a.q_strides;
  r.cos = ctx.input(kCos).data, r.sin = ctx.input(kSin).data;
  r.positions = s.positions;
  kernels::rope(r, ctx.pool());
}

Status read_sink(RunContext& ctx, Problem& p, const Scratch& s) {
  std::fill(s.sink, s.sink + p.args.heads, 0.0F);
  p.args.sink = s.sink;
  if (!ctx.has_input(kHeadSink)) return {};
  return dispatch_real(ctx, p.args.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* sink = ctx.input(kHeadSink).as<T>();
    for (int64_t h = 0; h < p.args.heads; ++h) s.sink[h] = static_cast<float>(load(sink[h]));
    return Status();
  });
}

Status run_gqa(RunContext& ctx) {
  Problem p;
  SPRUN_TRY(describe(ctx, p));
  AttentionArgs& a = p.args;
  const int threads = ctx.pool().num_threads();
  ScratchLayout needed;
  lay_out(needed, ctx.node(), p, threads);
  ScratchHolder holder;
  SPRUN_ASSIGN(void* base, holder.get(ctx, needed.used()));
  ScratchLayout layout(base);
  const Scratch s = lay_out(layout, ctx.node(), p, threads);

  SPRUN_TRY(read_lengths(ctx, p, s));
  if (p.rotary) SPRUN_TRY(read_positions(ctx, p, s));
  if (p.has_sink) SPRUN_TRY(read_sink(ctx, p, s));
  const int64_t size = dtype_size(a.dtype);
  const char* query = static_cast<const char*>(ctx.input(kQuery).data);
  const void* k = p.packed ? query + p.hidden() * size : ctx.input(kKey).data;
  const void* v = p.packed ? query + (p.hidden() + p.kv_hidden()) * size : ctx.input(kValue).data;
  char* k_cache = ctx.has_output(kPresentKey) ? ctx.output(kPresentKey).as<char>() : s.k;
  char* v_cache = ctx.has_output(kPresentValue) ? ctx.output(kPresentValue).as<char>() : s.v;
  fill_cache(ctx, p, s, p.has_past ? ctx.input(kPastKey).data : nullptr, k, p.rotary, k_cache);
  fill_cache(ctx, p, s, p.has_past ? ctx.input(kPastValue).data : nullptr, v, false, v_cache);
  if (p.rotary) rotate_queries(ctx, p, s);

  a.q = p.rotary ? s.q : query;
  a.k = k_cache, a.v = v_cache;
  a.out = ctx.output(kOut).data;
  a.batch_offset = s.past;
  a.batch_kv_len = s.kv_len;
  if (ctx.has_output(kScores)) a.scores = ctx.output(kScores).data;
  kernels::attention(a, ctx.pool(), s.kernel);
  return {};
}

constexpr OpDef kOps[] = {
    {.domain = "com.microsoft", .name = "GroupQueryAttention", .inputs = {1, 17}, .outputs = {1, 4},
     .infer = infer_gqa, .run = run_gqa, .prepare = prepare_gqa},
};

}  // namespace

extern const std::span<const OpDef> k_contrib_gqa_ops;
const std::span<const OpDef> k_contrib_gqa_ops = kOps;

}  // namespace sprun::graph
