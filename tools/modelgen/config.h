// What sprun-modelgen makes: a transformer of one of four families, any size, with random weights.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sprun/status.h"

namespace sprun::modelgen {

enum class Family { kBert, kGpt2, kLlama, kVit };
// Weights of linear layers and embeddings, as onnxruntime.quantization stores them.
enum class Quantization { kNone, kU8, kS8 };

// The feed-forward layer of the LLaMA family on its normed input x. h is what the last product gets.
enum class Ffn {
  kSwiGlu,  // h = silu(gate x) * up x
  kGeGlu,   // h = gelu_tanh(gate x) * up x
  kReGlu,   // h = relu(gate x + bias) * up x
  kRelu,    // h = relu(up x + bias), two matrices
  kTopK,    // h = gelu_tanh(top(gate x)) * up x, with top(g) = relu(g - mean g - z std g): statistical top-k, Gemma 3n
  kSpark,   // h = gelu_tanh(top(score x[:r])) * value x[r:]: Spark Transformer
};

// Which weights become zero. Blocks are written outputs x inputs; 1x1 is unstructured. With m > 0, the n largest of
// every m consecutive inputs of an output stay, whatever the wanted sparsity.
struct Pattern {
  int rows = 1, cols = 1;
  int n = 0, m = 0;
};

struct Config {
  Family family = Family::kBert;
  int64_t layers = 4, hidden = 256, heads = 4, kv_heads = 4, ffn = 1024;
  int64_t head_size = 0;  // LLaMA; 0: hidden / heads
  Ffn ffn_kind = Ffn::kSwiGlu;
  // Wanted share of hidden units that are not zero: top-k of kTopK and kSpark; of kReGlu and kRelu through the mean of a
  // bias (0: no bias for kReGlu, half of the units).
  double active = 0;
  int64_t score_inputs = 0;  // kSpark: r, how many inputs score the units
  bool tied = false;         // LLaMA: the head uses the embedding table, and embeddings are scaled by sqrt(hidden)
  int64_t vocab = 30522, max_seq = 512;            // text
  int64_t image = 224, patch = 16, channels = 3;   // ViT: square images
  int64_t labels = 0;   // BERT: classes of a classification head, 0: hidden states and pooler; ViT: at least 1
  bool past = false;    // GPT-2, LLaMA: key/value cache as inputs and outputs, named as Optimum does
  int opset = 14;       // 11 to 20
  Quantization quantization = Quantization::kNone;
  bool per_channel = false;
  // 4 or 8: linear layers as com.microsoft MatMulNBits with a scale for every `block` inputs. Embeddings stay float.
  int nbits = 0;
  int64_t block = 32;
  // Static quantisation in Q/DQ form instead of dynamic: QuantizeLinear and DequantizeLinear with constants on both
  // inputs of every product, those of attention too. BERT and ViT.
  bool qdq = false;
  // 8-bit weights behind DequantizeLinear, activations stay float.
  bool weight_only = false;
  double sparsity = 0;  // of linear layers inside the blocks, not of embeddings and heads
  Pattern pattern = {};
  uint64_t seed = 1;

  int64_t size_of_head() const { return head_size > 0 ? head_size : hidden / heads; }
};

// "bert-base" and so on; kUsage naming the presets if there is no such one.
Result<Config> preset(const std::string& name);
std::vector<std::string> preset_names();
// "swiglu", "geglu", "reglu", "relu", "topk", "spark". kUsage otherwise.
Result<Ffn> parse_ffn(const std::string& text);
// "unstructured", "16x4", "2:4". kUsage otherwise.
Result<Pattern> parse_pattern(const std::string& text);
// kUsage if the sizes cannot be those of a model.
Status validate(const Config& config);

}  // namespace sprun::modelgen
