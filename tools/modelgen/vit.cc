// Vision transformer (Dosovitskiy et al. 2020) as timm exports: patches by convolution, class token, pre-norm, one
// projection for queries, keys and values.
#include <cmath>

#include "tools/modelgen/families.h"

namespace sprun::modelgen {

namespace {
using At = Emitter::At;

constexpr float kEpsilon = 1e-6f;

// [B, channels, image, image] -> [B, patches, hidden]
ValueId patches(Emitter& e, ValueId pixels) {
  const Config& c = e.config();
  ValueId grid = 0;
  {
    const Emitter::Scope scope(e, "patch_embed");
    const float deviation = 1.0f / std::sqrt(static_cast<float>(c.channels * c.patch * c.patch));
    const ValueId kernel = e.weight("weight", Shape{c.hidden, c.channels, c.patch, c.patch}, 0, deviation);
    const std::vector<int64_t> size{c.patch, c.patch}, ones{1, 1}, zeros{0, 0, 0, 0};
    grid = e.op("Conv", {pixels, kernel, e.weight("bias", Shape{c.hidden}, 0, 0.1f)},
                {{"dilations", ones}, {"group", int64_t{1}}, {"kernel_shape", size}, {"pads", zeros}, {"strides", size}});
  }
  const ValueId shape = e.op("Shape", {grid});
  const ValueId axes = e.ints({0});
  const ValueId leading = e.op("Slice", {shape, e.ints({0}), e.ints({2}), axes});
  const ValueId flat = e.reshape_to(grid, e.concat({leading, e.ints({-1})}, 0));
  return e.transpose(flat, {0, 2, 1});
}

ValueId attention(Emitter& e, ValueId x, ValueId batch) {
  const Emitter::Scope scope(e, "attn");
  const Config& c = e.config();
  const int64_t size = c.hidden / c.heads;
  const ValueId length = e.dim(x, 1);
  const ValueId qkv = e.linear("qkv", x, c.hidden, 3 * c.hidden, 1.0f);
  const ValueId parts = e.transpose(e.reshape(qkv, {At{batch}, At{length}, 3, c.heads, size}), {2, 0, 3, 1, 4});
  const auto part = [&](int64_t index) {
    return e.op("Gather", {parts, e.scalar(index)}, {{"axis", int64_t{0}}});
  };
  const ValueId q = part(0), k = part(1), v = part(2);
  const ValueId scores = e.product(q, e.transpose(k, {0, 1, 3, 2}));
  const ValueId weights = e.softmax(e.op("Mul", {scores, e.scalar(1.0f / std::sqrt(static_cast<float>(size)))}));
  const ValueId turned = e.transpose(e.product(weights, v), {0, 2, 1, 3});
  const ValueId out = e.reshape(turned, {At{batch}, At{length}, c.hidden});
  return e.linear("proj", out, c.hidden, c.hidden, 1.0f / std::sqrt(2.0f * static_cast<float>(c.layers)));
}

ValueId layer(Emitter& e, ValueId x, ValueId batch) {
  const Config& c = e.config();
  const ValueId attended = e.op("Add", {x, attention(e, e.layer_norm("norm1", x, c.hidden, kEpsilon), batch)});
  const ValueId up = e.gelu_erf(e.linear("fc1", e.layer_norm("norm2", attended, c.hidden, kEpsilon), c.hidden, c.ffn, 1.0f));
  const float gain = 1.5f / std::sqrt(2.0f * static_cast<float>(c.layers));
  return e.op("Add", {attended, e.linear("fc2", up, c.ffn, c.hidden, gain)});
}
}  // namespace

void emit_vit(Emitter& e) {
  const Config& c = e.config();
  const ValueId pixels = e.input("pixel_values", DType::kF32, {"batch_size", c.channels, c.image, c.image});
  const ValueId tokens = patches(e, pixels);
  const ValueId batch = e.dim(tokens, 0);
  const ValueId cls = e.expand(e.weight("cls_token", Shape{1, 1, c.hidden}, 0, 1.0f), {At{batch}, -1, -1});
  const int64_t count = (c.image / c.patch) * (c.image / c.patch) + 1;
  ValueId x = e.op("Add", {e.concat({cls, tokens}, 1), e.weight("pos_embed", Shape{1, count, c.hidden}, 0, 0.5f)});
  for (int64_t i = 0; i < c.layers; ++i) {
    const Emitter::Scope scope(e, "blocks." + std::to_string(i));
    x = layer(e, x, batch);
  }
  const ValueId normed = e.layer_norm("norm", x, c.hidden, kEpsilon);
  const ValueId first = e.op("Gather", {normed, e.scalar(int64_t{0})}, {{"axis", int64_t{1}}});
  e.output(e.gemm("head", first, c.hidden, c.labels, 1.0f, false, true), "logits", {"batch_size", c.labels});
}

}  // namespace sprun::modelgen
