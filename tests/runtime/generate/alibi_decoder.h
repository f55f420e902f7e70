// A decoder with ALiBi and random weights, in the form of exporters: past and present keys and values, slopes times positions.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "graph/ir/graph.h"

namespace sprun {

class AlibiDecoder {
 public:
  // BLOOM: positions are the running sum of the attention mask. MPT: the last columns of a table of the whole context.
  // Sines: no slopes, sines of positions are added to tokens.
  enum class Form { kBloom, kMpt, kSines };

  // strength: slopes are multiplied by it.
  explicit AlibiDecoder(Form form, float strength = 1) : form_(form), strength_(strength) {
    const graph::ValueId ids = input("input_ids", DType::kS64, {{-1, "batch"}, {-1, "sequence"}});
    mask_ = input("attention_mask", DType::kS64, {{-1, "batch"}, {-1, "total"}});
    std::vector<graph::ValueId> past;
    for (int i = 0; i < kLayers; ++i) {
      for (const char* part : {".key", ".value"}) {
        past.push_back(input("past_key_values." + std::to_string(i) + part, DType::kF32,
                             {{-1, "batch"}, {kHeads, ""}, {-1, "past"}, {kDim, ""}}));
      }
    }
    make_bias(past[0]);
    graph::ValueId x = op("Gather", {weight("table", {kVocab, kHidden}, 4.0F), ids}, "x", {{"axis", int64_t{0}}});
    if (form_ == Form::kSines) x = op("Add", {x, sines_}, "placed");
    std::vector<graph::ValueId> presents;
    for (int i = 0; i < kLayers; ++i) x = attend(x, i, past, presents);
    std::vector<graph::ValueId> outputs = {op("MatMul", {x, weight("head", {kHidden, kVocab})}, "logits")};
    outputs.insert(outputs.end(), presents.begin(), presents.end());
    graph_.set_outputs(outputs);
  }
  const graph::Graph& graph() const { return graph_; }

 private:
  using Attrs = std::vector<std::pair<std::string, graph::Attr>>;
  static constexpr int64_t kHeads = 4, kDim = 16, kHidden = kHeads * kDim, kVocab = 99, kContext = 256;
  static constexpr int kLayers = 2;

  graph::ValueId input(const std::string& name, DType dtype, std::vector<graph::DimInfo> dims) {
    return graph_.add_input(name, dtype, std::move(dims));
  }
  graph::ValueId floats(const std::string& name, const Shape& shape, auto&& element) {
    Tensor tensor = Tensor::allocate(DType::kF32, shape).value();
    for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.mutable_view().as<float>()[i] = element(i);
    return graph_.add_constant(name, std::move(tensor));
  }
  graph::ValueId weight(const std::string& name, const Shape& shape, float gain = 1.0F) {
    std::normal_distribution<float> normal(0.0F, gain / std::sqrt(static_cast<float>(shape[0])));
    return floats("w/" + name, shape, [&](int64_t) { return normal(random_); });
  }
  graph::ValueId ints(const std::vector<int64_t>& values, bool scalar = false) {
    Tensor tensor = Tensor::allocate(DType::kS64, scalar ? Shape{} : Shape{static_cast<int64_t>(values.size())}).value();
    std::copy(values.begin(), values.end(), tensor.mutable_view().as<int64_t>());
    return graph_.add_constant(graph_.unique_name("i"), std::move(tensor));
  }
  graph::ValueId op(const char* kind, std::vector<graph::ValueId> inputs, const std::string& name, const Attrs& attrs = {}) {
    const graph::NodeId n = graph_.add_node("", kind, 17, std::move(inputs), {graph_.unique_name(name)});
    graph_.node(n).name = graph_.value(graph_.node(n).outputs[0]).name;
    for (const auto& [key, value] : attrs) graph_.node(n).attrs.set(key, value);
    return graph_.node(n).outputs[0];
  }

  float slope(int64_t head) const { return strength_ * std::exp2(-2.0F * static_cast<float>(head + 1)); }

  graph::ValueId size(graph::ValueId v, int64_t axis) {
    return op("Gather", {op("Shape", {v}, "shape"), ints({axis}, true)}, "size", {{"axis", int64_t{0}}});
  }

  // alibi_ [.., heads, 1, total] and hidden_ [tokens, total]: the smallest number where a key comes after a token.
  void make_bias(graph::ValueId past_key) {
    const graph::ValueId zero = ints({0}, true), one = ints({1}, true), past = size(past_key, 2), total = size(mask_, 1);
    const graph::ValueId keys = op("Range", {zero, total, one}, "keys");
    const graph::ValueId tokens = op("Unsqueeze", {op("Range", {past, total, one}, "tokens"), ints({1})}, "column");
    const graph::ValueId lowest = floats("lowest", {}, [](int64_t) { return -3.4e38F; });
    const graph::ValueId nothing = floats("nothing", {}, [](int64_t) { return 0.0F; });
    hidden_ = op("Where", {op("Greater", {keys, tokens}, "later"), lowest, nothing}, "causal");
    if (form_ == Form::kSines) {
      const graph::ValueId rates = floats("rates", {kHidden}, [](int64_t i) { return std::exp2(-0.2F * static_cast<float>(i)); });
      const graph::ValueId angles = op("Mul", {op("Cast", {tokens}, "places", {{"to", int64_t{1}}}), rates}, "angles");
      sines_ = op("Sin", {angles}, "sines");
      alibi_ = nothing;
      return;
    }
    if (form_ == Form::kMpt) {
      const graph::ValueId table = floats("table/alibi", {kHeads, 1, kContext}, [this](int64_t i) {
        return slope(i / kContext) * static_cast<float>(i % kContext + 1 - kContext);
      });
      const graph::ValueId first = op("Sub", {ints({kContext}), op("Unsqueeze", {total, ints({0})}, "total")}, "first");
      alibi_ = op("Slice", {table, first, ints({kContext}), ints({2})}, "alibi");
      return;
    }
    const graph::ValueId sum = op("CumSum", {mask_, one}, "sum");
    const graph::ValueId positions = op("Mul", {op("Sub", {sum, one}, "counted"), mask_}, "positions");
    const graph::ValueId row = op("Unsqueeze", {op("Cast", {positions}, "floats", {{"to", int64_t{1}}}), ints({1, 2})}, "row");
    alibi_ = op("Mul", {floats("slopes", {kHeads, 1, 1}, [this](int64_t i) { return slope(i); }), row}, "alibi");
  }

  graph::ValueId attend(graph::ValueId x, int layer, const std::vector<graph::ValueId>& past, std::vector<graph::ValueId>& presents) {
    const std::string n = std::to_string(layer);
    const auto heads = [&](const std::string& name) {
      const graph::ValueId y = op("MatMul", {x, weight(name + n, {kHidden, kHidden})}, name + n);
      return op("Transpose", {op("Reshape", {y, ints({0, 0, kHeads, kDim})}, name)}, name,
                {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
    };
    const graph::ValueId q = heads("q"), k = heads("k"), v = heads("v");
    const auto first = static_cast<size_t>(2 * layer);
    const graph::ValueId keys = op("Concat", {past[first], k}, "present." + n + ".key", {{"axis", int64_t{2}}});
    const graph::ValueId values = op("Concat", {past[first + 1], v}, "present." + n + ".value", {{"axis", int64_t{2}}});
    presents.insert(presents.end(), {keys, values});
    const graph::ValueId turned = op("Transpose", {keys}, "turned", {{"perm", std::vector<int64_t>{0, 1, 3, 2}}});
    const graph::ValueId scale = floats(graph_.unique_name("scale"), {}, [](int64_t) { return 0.25F; });
    graph::ValueId s = op("Mul", {op("MatMul", {q, turned}, "s"), scale}, "s");
    s = op("Add", {op("Add", {s, alibi_}, "s"), hidden_}, "s");
    const graph::ValueId p = op("Softmax", {s}, "p", {{"axis", int64_t{-1}}});
    const graph::ValueId y = op("Transpose", {op("MatMul", {p, values}, "y")}, "y", {{"perm", std::vector<int64_t>{0, 2, 1, 3}}});
    const graph::ValueId rows = op("Reshape", {y, ints({0, 0, kHidden})}, "rows");
    return op("Add", {x, op("MatMul", {rows, weight("o" + n, {kHidden, kHidden}, 2.0F)}, "o" + n)}, "x" + n);
  }

  Form form_;
  float strength_;
  graph::Graph graph_;
  std::mt19937 random_{11};
  graph::ValueId mask_ = graph::kNoValue, alibi_ = graph::kNoValue, hidden_ = graph::kNoValue;
  graph::ValueId sines_ = graph::kNoValue;
};

}  // namespace sprun
