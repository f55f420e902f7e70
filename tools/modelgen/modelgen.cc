#include "tools/modelgen/modelgen.h"

#include <limits>

#include "tools/modelgen/families.h"

namespace sprun::modelgen {

ValueId additive_mask(Emitter& e, ValueId attention_mask) {
  const ValueId mask = e.cast(e.unsqueeze(e.unsqueeze(attention_mask, 1), 2), DType::kF32);
  const ValueId inverted = e.op("Sub", {e.scalar(1.0f), mask});
  return e.op("Mul", {inverted, e.scalar(std::numeric_limits<float>::lowest())});
}

ValueId join_past(Emitter& e, int64_t layer, const char* name, ValueId x) {
  const Config& c = e.config();
  if (!c.past) return x;
  const std::string suffix = std::to_string(layer) + "." + name;
  const int64_t head_size = c.size_of_head();
  const ValueId past = e.input("past_key_values." + suffix, DType::kF32,
                               {"batch_size", c.kv_heads, "past_sequence_length", head_size});
  const ValueId joined = e.concat({past, x}, -2);
  e.output(joined, "present." + suffix,
           {"batch_size", c.kv_heads, "past_sequence_length + sequence_length", head_size});
  return joined;
}

Result<graph::Graph> generate(const Config& config) {
  SPRUN_TRY(validate(config));
  Emitter e(config);
  switch (config.family) {
    case Family::kBert: emit_bert(e); break;
    case Family::kGpt2: emit_gpt2(e); break;
    case Family::kLlama: emit_llama(e); break;
    case Family::kVit: emit_vit(e); break;
  }
  return e.finish();
}

}  // namespace sprun::modelgen
