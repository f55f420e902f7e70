// LLaMA (Touvron et al. 2023) as Hugging Face's LlamaForCausalLM exports: RMSNorm, rotary embedding by halves, grouped
// key/value heads repeated through Expand, SwiGLU or another feed-forward layer (ffn.cc).
#include <cmath>
#include <limits>

#include "tools/modelgen/families.h"

namespace sprun::modelgen {

namespace {
using At = Emitter::At;

constexpr float kEpsilon = 1e-5f;
constexpr float kTheta = 10000.0f;

struct Rotation {
  ValueId cos, sin;  // [B, 1, S, D]
};

Rotation rotation(Emitter& e, ValueId positions) {
  const int64_t half = e.config().size_of_head() / 2;
  auto inverse = Tensor::allocate(DType::kF32, Shape{1, 1, half});
  if (!inverse.ok()) return {graph::kNoValue, graph::kNoValue};
  for (int64_t i = 0; i < half; ++i) {
    const float exponent = static_cast<float>(i) / static_cast<float>(half);
    inverse->mutable_view().as<float>()[i] = 1.0f / std::pow(kTheta, exponent);
  }
  const ValueId real = e.cast(e.unsqueeze(positions, 2), DType::kF32);
  const ValueId angles = e.op("Mul", {real, e.constant("inv_freq", std::move(*inverse))});
  const ValueId both = e.concat({angles, angles}, -1);
  const ValueId cosines = e.unsqueeze(e.op("Cos", {both}), 1);
  return {cosines, e.unsqueeze(e.op("Sin", {both}), 1)};
}

// x * cos + (-second half, first half) * sin
ValueId rotate(Emitter& e, ValueId x, const Rotation& r) {
  const ValueId straight = e.op("Mul", {x, r.cos});
  const ValueId half = e.cast(e.op("Div", {e.dim(x, 3), e.scalar(int64_t{2})}), DType::kS64);
  const ValueId first = e.slice(x, e.ints({0}), e.unsqueeze(half, 0), 3);
  const ValueId middle = e.unsqueeze(half, 0);
  const ValueId second = e.slice(x, middle, e.ints({INT64_MAX}), 3);
  const ValueId turned = e.concat({e.op("Neg", {second}), first}, -1);
  return e.op("Add", {straight, e.op("Mul", {turned, r.sin})});
}

// [B, kv_heads, T, D] -> [B, heads, T, D], each key/value head for its group of queries
ValueId repeat_heads(Emitter& e, ValueId x, ValueId batch) {
  const Config& c = e.config();
  if (c.kv_heads == c.heads) return x;
  const int64_t size = c.size_of_head();
  const ValueId length = e.dim(x, 2);
  const ValueId repeated = e.expand(e.unsqueeze(x, 2), {At{batch}, c.kv_heads, c.heads / c.kv_heads, At{length}, size});
  return e.reshape(repeated, {At{batch}, c.heads, At{length}, size});
}

// Causal and padding mask [B, 1, S, T].
ValueId full_mask(Emitter& e, ValueId ids, ValueId attention_mask) {
  const float lowest = std::numeric_limits<float>::lowest();
  const ValueId queries = e.dim(ids, 1);
  const ValueId keys = e.dim(attention_mask, 1);
  const ValueId key_index = e.op("Range", {e.scalar(int64_t{0}), keys, e.scalar(int64_t{1})});
  const ValueId query_index = e.op("Range", {e.scalar(int64_t{0}), queries, e.scalar(int64_t{1})});
  const ValueId shifted = e.op("Add", {query_index, e.op("Sub", {keys, queries})});
  const ValueId columns = e.unsqueeze(key_index, 0);
  const ValueId later = e.cast(e.op("Greater", {columns, e.unsqueeze(shifted, 1)}), DType::kF32);
  const ValueId causal = e.op("Mul", {later, e.scalar(lowest)});
  const ValueId padding = additive_mask(e, attention_mask);
  const ValueId sum = e.op("Add", {e.unsqueeze(e.unsqueeze(causal, 0), 1), padding});
  return e.op("Clip", {sum, e.scalar(lowest), graph::kNoValue});
}

ValueId attention(Emitter& e, int64_t i, ValueId x, const Rotation& r, ValueId mask) {
  const Config& c = e.config();
  const int64_t size = c.size_of_head();
  const ValueId batch = e.dim(x, 0);
  const ValueId length = e.dim(x, 1);
  const auto project = [&](const char* name, int64_t heads) {
    const ValueId product = e.matmul(name, x, c.hidden, heads * size, 1.0f);
    return e.transpose(e.reshape(product, {At{batch}, At{length}, heads, size}), {0, 2, 1, 3});
  };
  const ValueId q = rotate(e, project("q_proj", c.heads), r);
  const ValueId new_k = rotate(e, project("k_proj", c.kv_heads), r);
  const ValueId new_v = project("v_proj", c.kv_heads);
  const ValueId k = repeat_heads(e, join_past(e, i, "key", new_k), batch);
  const ValueId v = repeat_heads(e, join_past(e, i, "value", new_v), batch);
  const ValueId product = e.op("MatMul", {q, e.transpose(k, {0, 1, 3, 2})});
  const ValueId scores = e.op("Div", {product, e.scalar(std::sqrt(static_cast<float>(size)))});
  const ValueId weights = e.cast(e.softmax(e.op("Add", {scores, mask})), DType::kF32);
  const ValueId turned = e.transpose(e.op("MatMul", {weights, v}), {0, 2, 1, 3});
  const ValueId out = e.reshape(turned, {At{batch}, At{length}, c.heads * size});
  return e.matmul("o_proj", out, c.heads * size, c.hidden, 1.0f / std::sqrt(2.0f * static_cast<float>(c.layers)));
}

ValueId layer(Emitter& e, int64_t i, ValueId x, const Rotation& r, ValueId mask) {
  const Config& c = e.config();
  const ValueId normed = e.rms_norm("input_layernorm", x, c.hidden, kEpsilon);
  const ValueId attended = e.op("Add", {x, attention(e, i, normed, r, mask)});
  const ValueId inner = e.rms_norm("post_attention_layernorm", attended, c.hidden, kEpsilon);
  return e.op("Add", {attended, feed_forward(e, inner)});
}
}  // namespace

void emit_llama(Emitter& e) {
  const Config& c = e.config();
  const std::vector<Emitter::Dim> text{"batch_size", "sequence_length"};
  const ValueId ids = e.input("input_ids", DType::kS64, text);
  const ValueId mask_input = e.input(
      "attention_mask", DType::kS64, {"batch_size", c.past ? "past_sequence_length + sequence_length" : "sequence_length"});
  const ValueId positions = e.input("position_ids", DType::kS64, text);
  const float root = std::sqrt(static_cast<float>(c.hidden));
  const float deviation = c.tied ? 1.0f / root : 1.0f;
  ValueId x = e.embedding("embed_tokens", ids, c.vocab, c.hidden, deviation);
  if (c.tied) x = e.op("Mul", {x, e.scalar(root)});
  const ValueId mask = full_mask(e, ids, mask_input);
  const Rotation r = rotation(e, positions);
  for (int64_t i = 0; i < c.layers; ++i) {
    const Emitter::Scope scope(e, "layers." + std::to_string(i));
    x = layer(e, i, x, r, mask);
  }
  const ValueId normed = e.rms_norm("norm", x, c.hidden, kEpsilon);
  const ValueId logits = c.tied ? e.matmul_by_table("lm_head", "embed_tokens", normed, c.vocab, c.hidden, deviation)
                                : e.matmul("lm_head", normed, c.hidden, c.vocab, 1.0f, false);
  e.output_first(logits, "logits", {"batch_size", "sequence_length", c.vocab});
}

}  // namespace sprun::modelgen
