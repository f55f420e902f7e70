// EmbedLayerNormalization (com.microsoft): word + position + segment embeddings, then layer
// normalisation.
#include <algorithm>
#include <cmath>

#include "graph/ops/op_util.h"

namespace sprun::graph {

namespace {

// Positions of the inputs.
enum Input { kIds, kSegmentIds, kWord, kPosition, kSegment, kGamma, kBeta, kMask, kPositionIds };

Status check_table(const InferContext& ctx, int i, const char* name, int64_t hidden) {
  const Shape& s = ctx.shape(i);
  return ctx.check(s.rank() == 2 && s[1] == hidden && ctx.dtype(i) == ctx.dtype(kWord),
                   std::string(name) + " must have shape [rows," + std::to_string(hidden) +
                       "] and the type of word_embedding, got " + s.to_string());
}

Status check_like_ids(const InferContext& ctx, int i, const char* name) {
  if (!ctx.has_input(i)) return {};
  const Shape& ids = ctx.shape(kIds);
  const Shape& s = ctx.shape(i);
  const bool fits = s == ids || (i == kPositionIds && s.rank() == 2 && s[0] == 1 && s[1] == ids[1]);
  return ctx.check(fits && ctx.dtype(i) == DType::kS32,
                   std::string(name) + " must be int32 with the shape of input_ids " +
                       ids.to_string() + ", got " + s.to_string());
}

Status check_inputs(const InferContext& ctx) {
  // The absent optional inputs lie between required ones, so that the arity alone cannot tell.
  for (int i : {kIds, kWord, kPosition, kGamma, kBeta}) {
    SPRUN_TRY(ctx.check(ctx.has_input(i), "input " + std::to_string(i) + " is missing"));
  }
  const Shape& ids = ctx.shape(kIds);
  SPRUN_TRY(ctx.check(ids.rank() == 2 && ctx.dtype(kIds) == DType::kS32,
                      "input_ids must be int32 [batch,seq], got " + ids.to_string()));
  SPRUN_TRY(ctx.check(is_float(ctx.dtype(kWord)), "word_embedding must be a float type"));
  SPRUN_TRY(ctx.check(ctx.shape(kWord).rank() == 2, "word_embedding must have 2 axes"));
  const int64_t hidden = ctx.shape(kWord)[1];
  SPRUN_TRY(check_table(ctx, kPosition, "position_embedding", hidden));
  SPRUN_TRY(ctx.check(ctx.has_input(kSegmentIds) == ctx.has_input(kSegment),
                      "segment_ids and segment_embedding must come together"));
  if (ctx.has_input(kSegment)) SPRUN_TRY(check_table(ctx, kSegment, "segment_embedding", hidden));
  for (int i : {kGamma, kBeta}) {
    const Shape& s = ctx.shape(i);
    SPRUN_TRY(
        ctx.check(s.rank() == 1 && s[0] == hidden && ctx.dtype(i) == ctx.dtype(kWord),
                  "gamma and beta must be vectors of " + std::to_string(hidden) + " elements"));
  }
  SPRUN_TRY(check_like_ids(ctx, kSegmentIds, "segment_ids"));
  SPRUN_TRY(check_like_ids(ctx, kMask, "mask"));
  return check_like_ids(ctx, kPositionIds, "position_ids");
}

Status infer(InferContext& ctx) {
  SPRUN_TRY(check_inputs(ctx));
  const Shape& ids = ctx.shape(kIds);
  const Shape y{ids[0], ids[1], ctx.shape(kWord)[1]};
  ctx.set_output(0, ctx.dtype(kWord), y);
  ctx.set_output(1, DType::kS32, Shape{ids[0]});
  ctx.set_output(2, ctx.dtype(kWord), y);
  return {};
}

// Every index must lie inside its table; checked once, before any row is read.
Status check_indices(const RunContext& ctx, int ids, int table, const char* name) {
  const int32_t* v = ctx.input(ids).as<int32_t>();
  const int64_t rows = ctx.input(table).shape[0];
  for (int64_t i = 0; i < ctx.input(ids).num_elements(); ++i) {
    if (v[i] < 0 || v[i] >= rows) {
      return ctx.error(std::string(name) + " " + std::to_string(v[i]) + " is outside a table of " +
                       std::to_string(rows) + " rows");
    }
  }
  return {};
}

Status check_values(const RunContext& ctx) {
  SPRUN_TRY(check_indices(ctx, kIds, kWord, "input id"));
  if (ctx.has_input(kSegmentIds))
    SPRUN_TRY(check_indices(ctx, kSegmentIds, kSegment, "segment id"));
  if (ctx.has_input(kPositionIds))
    return check_indices(ctx, kPositionIds, kPosition, "position id");
  return ctx.check(ctx.input(kIds).shape[1] <= ctx.input(kPosition).shape[0],
                   "sequence of " + std::to_string(ctx.input(kIds).shape[1]) +
                       " tokens, but only " + std::to_string(ctx.input(kPosition).shape[0]) +
                       " positions");
}

// mask_index[b] = number of ones in row b of the mask; 0 without a mask.
void write_mask_index(const RunContext& ctx) {
  if (!ctx.has_output(1)) return;
  const Shape& ids = ctx.input(kIds).shape;
  int32_t* out = ctx.output(1).as<int32_t>();
  std::fill_n(out, ids[0], 0);
  if (!ctx.has_input(kMask)) return;
  const int32_t* mask = ctx.input(kMask).as<int32_t>();
  for (int64_t b = 0; b < ids[0]; ++b) {
    out[b] = static_cast<int32_t>(std::count(mask + b * ids[1], mask + (b + 1) * ids[1], 1));
  }
}

template <class T>
struct Embedder {
  using C = ComputeType<T>;

  explicit Embedder(const RunContext& ctx)
      : ids(ctx.input(kIds).as<int32_t>()),
        segment_ids(ctx.has_input(kSegmentIds) ? ctx.input(kSegmentIds).as<int32_t>() : nullptr),
        position_ids(ctx.has_input(kPositionIds) ? ctx.input(kPositionIds).as<int32_t>() : nullptr),
        word(ctx.input(kWord).as<T>()),
        position(ctx.input(kPosition).as<T>()),
        segment(segment_ids ? ctx.input(kSegment).as<T>() : nullptr),
        gamma(ctx.input(kGamma).as<T>()),
        beta(ctx.input(kBeta).as<T>()),
        y(ctx.output(0).as<T>()),
        sum(ctx.has_output(2) ? ctx.output(2).as<T>() : nullptr),
        seq(ctx.input(kIds).shape[1]),
        n(ctx.input(kWord).shape[1]),
        shared_positions(position_ids != nullptr && ctx.input(kPositionIds).shape[0] == 1),
        epsilon(static_cast<C>(ctx.attrs().get_float("epsilon", 1e-12F))) {}

  void run(int64_t token) const {
    int64_t p = token % seq;
    if (position_ids != nullptr) p = position_ids[shared_positions ? p : token];
    const T* rows[3] = {word + ids[token] * n, position + p * n,
                        segment != nullptr ? segment + segment_ids[token] * n : nullptr};
    C mean = 0;
    for (int64_t c = 0; c < n; ++c) mean += value(rows, c);
    mean /= static_cast<C>(n);
    C square = 0;
    for (int64_t c = 0; c < n; ++c) square += (value(rows, c) - mean) * (value(rows, c) - mean);
    const C inv_std = C{1} / std::sqrt(square / static_cast<C>(n) + epsilon);
    for (int64_t c = 0; c < n; ++c) {
      const C v = value(rows, c);
      if (sum != nullptr) sum[token * n + c] = store<T>(v);
      y[token * n + c] = store<T>((v - mean) * inv_std * static_cast<C>(load(gamma[c])) +
                                  static_cast<C>(load(beta[c])));
    }
  }

  static C value(const T* const* rows, int64_t c) {
    const C v = load(rows[0][c]) + load(rows[1][c]);
    return rows[2] != nullptr ? v + load(rows[2][c]) : v;
  }

  const int32_t *ids, *segment_ids, *position_ids;
  const T *word, *position, *segment, *gamma, *beta;
  T *y, *sum;
  int64_t seq, n;
  bool shared_positions;
  C epsilon;
};

Status run(RunContext& ctx) {
  SPRUN_TRY(check_values(ctx));
  write_mask_index(ctx);
  return dispatch_real(ctx, ctx.input(kWord).dtype, [&](auto tag) {
    const Embedder<typename decltype(tag)::type> embedder(ctx);
    const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(embedder.n, 1));
    ctx.pool().parallel_for(ctx.input(kIds).num_elements(), grain,
                            [&](int64_t begin, int64_t end, int) {
                              for (int64_t t = begin; t < end; ++t) embedder.run(t);
                            });
    return Status();
  });
}

constexpr OpDef kOps[] = {
    {.domain = "com.microsoft",
     .name = "EmbedLayerNormalization",
     .inputs = {1, 9},
     .outputs = {1, 3},
     .infer = infer,
     .run = run},
};

}  // namespace

extern const std::span<const OpDef> k_embed_layer_norm_ops;
const std::span<const OpDef> k_embed_layer_norm_ops = kOps;

}  // namespace sprun::graph
