// Internal to sprun-modelgen: one function per model family.
#pragma once

#include "tools/modelgen/emitter.h"

namespace sprun::modelgen {

void emit_bert(Emitter& e);
void emit_gpt2(Emitter& e);
void emit_llama(Emitter& e);
void emit_vit(Emitter& e);

// The feed-forward layer that the configuration names, on x [B, S, hidden] of deviation 1.
ValueId feed_forward(Emitter& e, ValueId x);
// (1 - mask) * lowest float, for attention_mask s64 [B, S] -> f32 [B, 1, 1, S].
ValueId additive_mask(Emitter& e, ValueId attention_mask);
// The cache of one layer: the input past_key_values.I.NAME joined with x [B, H, S, D] along S, also an output
// present.I.NAME. Without a cache: x.
ValueId join_past(Emitter& e, int64_t layer, const char* name, ValueId x);

}  // namespace sprun::modelgen
