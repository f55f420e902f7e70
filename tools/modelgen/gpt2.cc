// GPT-2 (Radford et al. 2019) as Hugging Face's GPT2LMHeadModel exports: pre-norm, Conv1D as Gemm between reshapes, a
// causal mask cut from a constant, tanh Gelu.
#include <cmath>
#include <limits>

#include "tools/modelgen/families.h"

namespace sprun::modelgen {

namespace {
using At = Emitter::At;

constexpr float kEpsilon = 1e-5f;

// x.view(-1, x.size(-1)), Gemm, back to [B, S, outputs].
ValueId conv1d(Emitter& e, const std::string& name, ValueId x, int64_t inputs, int64_t outputs, float gain) {
  ValueId batch = 0, length = 0, flat = 0;
  {
    const Emitter::Scope scope(e, name);
    batch = e.dim(x, 0);
    length = e.dim(x, 1);
    const ValueId last = e.last_dims_entry(x, -1);
    flat = e.reshape(x, {-1, At{last}});
  }
  const ValueId product = e.gemm(name, flat, inputs, outputs, gain, true, false);
  const Emitter::Scope scope(e, name);
  return e.reshape(product, {At{batch}, At{length}, outputs});
}

// Scores [B, H, S, T] where the constant lower triangle allows them, else the lowest float.
ValueId causal(Emitter& e, ValueId triangle, ValueId q, ValueId k, ValueId scores) {
  const ValueId queries = e.last_dims_entry(q, -2);
  const ValueId keys = e.last_dims_entry(k, -2);
  const ValueId begin = e.unsqueeze(e.op("Sub", {keys, queries}), 0);
  const ValueId rows = e.slice(triangle, begin, e.unsqueeze(keys, 0), 2);
  const ValueId zero = e.ints({0});
  const ValueId window = e.slice(rows, zero, e.unsqueeze(keys, 0), 3);
  return e.op("Where", {window, scores, e.scalar(std::numeric_limits<float>::lowest())});
}

// value.size(-1) ** 0.5, put into a new tensor
ValueId score_scale(Emitter& e, ValueId v) {
  const ValueId size = e.cast(e.last_dims_entry(v, -1), DType::kF32);
  const ValueId root = e.op("Pow", {size, e.scalar(0.5f)});
  auto zero = Tensor::zeros(DType::kF32, Shape{1});
  const ValueId none = e.ints({});
  const ValueId base = e.op("ConstantOfShape", {none}, {{"value", zero.ok() ? *zero : Tensor()}});
  return e.op("Add", {base, root});
}

ValueId attention(Emitter& e, int64_t i, ValueId x, ValueId triangle, ValueId mask) {
  const Config& c = e.config();
  const int64_t size = c.hidden / c.heads;
  const ValueId qkv = conv1d(e, "attn", x, c.hidden, 3 * c.hidden, 1.0f);
  const std::vector<ValueId> parts = e.split(qkv, {c.hidden, c.hidden, c.hidden}, 2);
  const ValueId q = e.transpose(e.split_heads(parts[0], c.heads, size), {0, 2, 1, 3});
  const ValueId new_k = e.transpose(e.split_heads(parts[1], c.heads, size), {0, 2, 1, 3});
  const ValueId new_v = e.transpose(e.split_heads(parts[2], c.heads, size), {0, 2, 1, 3});
  const ValueId k = join_past(e, i, "key", new_k);
  const ValueId v = join_past(e, i, "value", new_v);
  const ValueId product = e.op("MatMul", {q, e.transpose(k, {0, 1, 3, 2})});
  const ValueId scores = e.op("Div", {product, score_scale(e, v)});
  const ValueId allowed = e.op("Add", {causal(e, triangle, q, k, scores), mask});
  const ValueId out = e.merge_heads(e.op("MatMul", {e.softmax(allowed), v}));
  return conv1d(e, "proj", out, c.hidden, c.hidden, 1.0f / std::sqrt(2.0f * static_cast<float>(c.layers)));
}

ValueId layer(Emitter& e, int64_t i, ValueId x, ValueId triangle, ValueId mask) {
  const Config& c = e.config();
  const ValueId normed = e.layer_norm("ln_1", x, c.hidden, kEpsilon);
  const ValueId attended = e.op("Add", {attention(e, i, normed, triangle, mask), x});
  const ValueId up = conv1d(e, "fc", e.layer_norm("ln_2", attended, c.hidden, kEpsilon), c.hidden, c.ffn, 1.0f);
  const float gain = 1.5f / std::sqrt(2.0f * static_cast<float>(c.layers));
  return e.op("Add", {attended, conv1d(e, "mlp_proj", e.gelu_tanh(up), c.ffn, c.hidden, gain)});
}

// bool [1, 1, n, n], true on and below the diagonal
Result<Tensor> lower_triangle(int64_t n) {
  SPRUN_ASSIGN(Tensor tensor, Tensor::zeros(DType::kBool, Shape{1, 1, n, n}));
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t column = 0; column <= row; ++column) tensor.mutable_view().as<bool>()[row * n + column] = true;
  }
  return tensor;
}
}  // namespace

void emit_gpt2(Emitter& e) {
  const Config& c = e.config();
  const std::vector<Emitter::Dim> text{"batch_size", "sequence_length"};
  const ValueId ids = e.input("input_ids", DType::kS64, text);
  const ValueId mask_input = e.input(
      "attention_mask", DType::kS64, {"batch_size", c.past ? "past_sequence_length + sequence_length" : "sequence_length"});
  const ValueId positions = e.input("position_ids", DType::kS64, text);
  const ValueId mask = additive_mask(e, mask_input);
  const ValueId words = e.embedding("wte", ids, c.vocab, c.hidden, 1.0f);
  ValueId x = e.op("Add", {words, e.embedding("wpe", positions, c.max_seq, c.hidden, 0.3f)});
  const ValueId triangle = e.checked_constant("causal_mask", lower_triangle(c.max_seq));
  for (int64_t i = 0; i < c.layers; ++i) {
    const Emitter::Scope scope(e, "h." + std::to_string(i));
    x = layer(e, i, x, triangle, mask);
  }
  const ValueId normed = e.layer_norm("ln_f", x, c.hidden, kEpsilon);
  e.output_first(e.matmul("lm_head", normed, c.hidden, c.vocab, 1.0f, false), "logits",
                 {"batch_size", "sequence_length", c.vocab});
}

}  // namespace sprun::modelgen
