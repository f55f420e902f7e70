// BERT (Devlin et al. 2018) as Hugging Face's BertModel exports: post-norm, learned positions, erf Gelu.
#include <cmath>
#include <numeric>

#include "tools/modelgen/families.h"

namespace sprun::modelgen {

namespace {
constexpr float kEpsilon = 1e-12f;
constexpr Emitter::Range kMeanRange{-2.0f, 2.0f};  // of means of values over 20 tokens or more

ValueId embeddings(Emitter& e, ValueId ids, ValueId types) {
  const Emitter::Scope scope(e, "emb");
  const Config& c = e.config();
  auto table = Tensor::allocate(DType::kS64, Shape{1, c.max_seq});
  if (!table.ok()) return graph::kNoValue;
  auto* positions = table->mutable_view().as<int64_t>();
  std::iota(positions, positions + c.max_seq, int64_t{0});
  const ValueId position_ids = e.constant("position_ids", std::move(*table));
  const ValueId length = e.unsqueeze(e.dim(ids, 1), 0);
  const ValueId used = e.slice(position_ids, e.ints({0}), length, 1);
  const ValueId words = e.embedding("word", ids, c.vocab, c.hidden, 1.0f);
  const ValueId sum = e.op("Add", {words, e.embedding("type", types, 2, c.hidden, 0.3f)});
  const ValueId all = e.op("Add", {sum, e.embedding("pos", used, c.max_seq, c.hidden, 0.3f)});
  return e.layer_norm("ln", all, c.hidden, kEpsilon);
}

ValueId attention(Emitter& e, ValueId x, ValueId mask) {
  const Emitter::Scope scope(e, "att");
  const Config& c = e.config();
  const int64_t size = c.hidden / c.heads;
  const ValueId q = e.transpose(e.split_heads(e.linear("q", x, c.hidden, c.hidden, 1.0f), c.heads, size), {0, 2, 1, 3});
  const ValueId k = e.split_heads(e.linear("k", x, c.hidden, c.hidden, 1.0f), c.heads, size);
  const ValueId v = e.transpose(e.split_heads(e.linear("v", x, c.hidden, c.hidden, 1.0f), c.heads, size), {0, 2, 1, 3});
  const ValueId scores = e.product(q, e.transpose(k, {0, 2, 3, 1}));
  const ValueId scaled = e.op("Div", {scores, e.scalar(std::sqrt(static_cast<float>(size)))});
  const ValueId weights = e.softmax(e.op("Add", {scaled, mask}));
  const ValueId mixed = e.merge_heads(e.product(weights, v));
  e.set_range(mixed, kMeanRange);
  return e.linear("o", mixed, c.hidden, c.hidden, 1.0f);
}

ValueId layer(Emitter& e, ValueId x, ValueId mask) {
  const Config& c = e.config();
  const ValueId attended = e.layer_norm("n1", e.op("Add", {attention(e, x, mask), x}), c.hidden, kEpsilon);
  const ValueId up = e.gelu_erf(e.linear("f1", attended, c.hidden, c.ffn, 1.0f));
  const ValueId down = e.linear("f2", up, c.ffn, c.hidden, 1.5f);
  return e.layer_norm("n2", e.op("Add", {down, attended}), c.hidden, kEpsilon);
}
}  // namespace

void emit_bert(Emitter& e) {
  const Config& c = e.config();
  const std::vector<Emitter::Dim> text{"batch_size", "sequence_length"};
  const ValueId ids = e.input("input_ids", DType::kS64, text);
  const ValueId attention_mask = e.input("attention_mask", DType::kS64, text);
  const ValueId types = e.input("token_type_ids", DType::kS64, text);
  const ValueId mask = additive_mask(e, attention_mask);
  ValueId x = embeddings(e, ids, types);
  for (int64_t i = 0; i < c.layers; ++i) {
    const Emitter::Scope scope(e, "layers." + std::to_string(i));
    x = layer(e, x, mask);
  }
  const ValueId first = e.op("Gather", {x, e.scalar(int64_t{0})}, {{"axis", int64_t{1}}});
  const ValueId pooled = e.op("Tanh", {e.gemm("pooler", first, c.hidden, c.hidden, 1.0f, false, true)});
  if (c.labels > 0) {
    e.output(e.gemm("classifier", pooled, c.hidden, c.labels, 1.0f, false, true), "logits", {"batch_size", c.labels});
    return;
  }
  e.output(x, "last_hidden_state", {"batch_size", "sequence_length", c.hidden});
  e.output(pooled, "pooler_output", {"batch_size", c.hidden});
}

}  // namespace sprun::modelgen
