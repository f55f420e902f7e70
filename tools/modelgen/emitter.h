// Emitter: writes a graph node by node, spelled as PyTorch's TorchScript exporter spells transformers.
//
//   Emitter e(config);
//   const ValueId x = e.input("input_ids", DType::kS64, {"batch_size", "sequence_length"});
//   { Emitter::Scope scope(e, "emb"); y = e.embedding("word", x, vocab, hidden); }   // node "/emb/word/Gather"
//   e.output(y, "logits", {"batch_size", 3});
//
// The first error (no memory) is kept; later calls do nothing and finish() reports it.
#pragma once

#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/modelgen/config.h"

namespace sprun::modelgen {

using graph::Attr;
using graph::ValueId;

class Emitter {
 public:
  // A size in a declared shape: a number or a symbol. A size in the target of a reshape: a number or a scalar value.
  using Dim = std::variant<int64_t, std::string>;
  struct At {
    ValueId value;
  };
  // Real values that the 8-bit codes of an activation reach.
  struct Range {
    float low, high;
  };
  using Size = std::variant<int64_t, At>;
  using Attrs = std::initializer_list<std::pair<const char*, Attr>>;

  explicit Emitter(const Config& config) : config_(config) {}

  // Prefix of node and weight names while it lives; scopes nest.
  class Scope {
   public:
    Scope(Emitter& emitter, const std::string& name) : emitter_(emitter), outer_(emitter.scope_) {
      emitter_.scope_ += (outer_.empty() ? "" : "/") + name;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { emitter_.scope_ = outer_; }

   private:
    Emitter& emitter_;
    std::string outer_;
  };

  const Config& config() const { return config_; }
  Result<graph::Graph> finish();

  // --- interface and constants
  ValueId input(const std::string& name, DType dtype, const std::vector<Dim>& dims);
  void output(ValueId value, const std::string& name, const std::vector<Dim>& dims);
  // The same, in front of the outputs so far.
  void output_first(ValueId value, const std::string& name, const std::vector<Dim>& dims);
  ValueId scalar(float value);
  ValueId scalar(int64_t value);
  ValueId ints(const std::vector<int64_t>& values);
  // A weight of this scope: random with the given mean and deviation.
  ValueId weight(const std::string& name, const Shape& shape, float mean, float deviation);
  ValueId constant(const std::string& name, Tensor tensor);
  ValueId checked_constant(const std::string& full_name, Result<Tensor> tensor);

  // --- single ops
  ValueId op(const char* type, const std::vector<ValueId>& inputs, Attrs attrs = {});
  // An op of com.microsoft.
  ValueId contrib_op(const char* type, const std::vector<ValueId>& inputs, Attrs attrs);
  std::vector<ValueId> op_n(const char* type, const std::vector<ValueId>& inputs, int outputs, Attrs attrs = {});
  ValueId cast(ValueId x, DType dtype);
  ValueId transpose(ValueId x, const std::vector<int64_t>& perm);
  ValueId concat(const std::vector<ValueId>& parts, int64_t axis);
  ValueId slice(ValueId x, ValueId begin, ValueId end, int64_t axis);
  // Attribute or input, as the opset has it.
  ValueId unsqueeze(ValueId x, int64_t axis);
  ValueId squeeze(ValueId x, int64_t axis);
  std::vector<ValueId> split(ValueId x, const std::vector<int64_t>& sizes, int64_t axis);
  ValueId reshape_to(ValueId x, ValueId shape);

  // --- what the exporter makes of common expressions
  ValueId dim(ValueId x, int64_t axis);                          // x.shape[axis]: Shape, Gather
  ValueId last_dims_entry(ValueId x, int64_t begin);             // x.size(-n) through Slice and Squeeze
  ValueId reshape(ValueId x, const std::vector<Size>& sizes);    // x.view(...): Unsqueeze, Concat, Reshape
  ValueId split_heads(ValueId x, int64_t heads, int64_t size);   // [B, S, heads * size] -> [B, S, heads, size]
  ValueId merge_heads(ValueId x);                                // [B, heads, S, size] -> [B, S, heads * size]
  ValueId expand(ValueId x, const std::vector<Size>& sizes);     // x.expand(...), with the check for -1
  ValueId embedding(const std::string& name, ValueId ids, int64_t rows, int64_t columns, float deviation);
  // x [.., inputs] times a weight [inputs, outputs]; int8 if the configuration says so. gain: deviation of the result
  // for x of deviation 1. prunable: the configured sparsity applies.
  ValueId matmul(const std::string& name, ValueId x, int64_t inputs, int64_t outputs, float gain, bool prunable = true);
  ValueId linear(const std::string& name, ValueId x, int64_t inputs, int64_t outputs, float gain, bool prunable = true);
  // x [.., columns] times the transposed table of embedding `embedding` of this scope: a tied head.
  ValueId matmul_by_table(const std::string& name, const std::string& embedding, ValueId x, int64_t rows,
                          int64_t columns, float deviation);
  // A 2-d linear as Gemm; in a dynamically quantised model MatMul and Add, as the quantiser splits it.
  ValueId gemm(const std::string& name, ValueId x, int64_t inputs, int64_t outputs, float gain, bool prunable,
               bool transposed_weight);
  // MatMul of two activations, through 8-bit codes in Q/DQ form.
  ValueId product(ValueId a, ValueId b);
  // The range that x is quantised to in Q/DQ form; without this call that of a value of deviation 1.
  void set_range(ValueId x, Range range) { ranges_[x] = range; }
  ValueId layer_norm(const std::string& name, ValueId x, int64_t size, float epsilon);
  ValueId rms_norm(const std::string& name, ValueId x, int64_t size, float epsilon);
  ValueId reduce_mean(ValueId x);  // over the last axis, which stays
  ValueId gelu_erf(ValueId x);
  ValueId gelu_tanh(ValueId x);
  ValueId silu(ValueId x);
  ValueId softmax(ValueId x);

 private:
  struct Quantized {
    ValueId values, scale, zero_point;
  };

  std::string scoped(const std::string& name, char separator) const;
  ValueId shape_of(const std::vector<Size>& sizes);
  std::string node_name(const char* type);
  ValueId fail(const Status& status);
  std::vector<ValueId> node(const char* domain, int version, const char* type, const std::vector<ValueId>& inputs,
                            int outputs, Attrs attrs);
  // x times a weight [inputs, outputs] in the form that the configuration says.
  ValueId product_with(const std::string& full_name, ValueId x, Tensor weight);
  ValueId nbits_matmul(const std::string& name, ValueId x, const Tensor& weight);
  Result<Tensor> linear_weight(const std::string& name, int64_t inputs, int64_t outputs, float gain, bool prunable);
  // DynamicQuantizeLinear of x, shared by all its users.
  const Quantized& quantized(ValueId x);
  ValueId int8_matmul(const std::string& name, ValueId x, const Tensor& weight);
  // Q/DQ form: QuantizeLinear and DequantizeLinear of x, shared by all its users; a weight as codes.
  ValueId through_codes(ValueId x);
  ValueId dequantized_weight(const std::string& name, const Tensor& weight, int64_t channel_axis);

  Config config_;
  graph::Graph graph_;
  Status status_;
  std::string scope_;
  std::map<std::string, int> names_taken_;
  std::map<ValueId, Quantized> quantized_;
  std::map<ValueId, ValueId> dequantized_;
  std::map<ValueId, Range> ranges_;
};

}  // namespace sprun::modelgen
