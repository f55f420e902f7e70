// Transformers with random weights as ONNX graphs, in the op patterns of the common exporters.
//
//   SPRUN_ASSIGN(modelgen::Config config, modelgen::preset("bert-mini"));
//   SPRUN_ASSIGN(graph::Graph graph, modelgen::generate(config));
//   SPRUN_TRY(graph::write_onnx(graph, "bert-mini.onnx"));
//
// Inputs and outputs, with B batch, S sequence and P cache length as symbols:
//   BERT   input_ids, attention_mask, token_type_ids s64 [B, S] -> last_hidden_state f32 [B, S, hidden],
//          pooler_output [B, hidden], or with labels: logits [B, labels]
//   GPT-2, LLaMA with every feed-forward layer (Spark, statistical top-k, ReGLU, ..)
//          input_ids, position_ids s64 [B, S], attention_mask s64 [B, P + S] -> logits f32 [B, S, vocab];
//          with a cache also past_key_values.I.{key,value} f32 [B, kv_heads, P, head_size] -> present.I.{key,value}, heads of size size_of_head()
//   ViT    pixel_values f32 [B, channels, image, image] -> logits f32 [B, labels]
#pragma once

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/modelgen/config.h"

namespace sprun::modelgen {

// kUsage if the configuration cannot be built, kResourceLimit if memory runs out. The same configuration gives the same
// weights everywhere; the float weights do not depend on quantization.
Result<graph::Graph> generate(const Config& config);

}  // namespace sprun::modelgen
