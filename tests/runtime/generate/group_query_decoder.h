// A decoder of com.microsoft nodes with random weights, in the form of the exporters that write such nodes.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "graph/ir/graph.h"

namespace sprun {

struct GroupQueryConfig {
  int64_t heads = 4, kv_heads = 2, dim = 8, layers = 2, vocab = 50;
  bool packed = false, rotary = true, fused = false;  // fused: Attention with its projection instead
  int64_t window = -1;
  bool presents = true;   // false: forgets to hand on the past
  bool finite = true;     // false: one logit is NaN
};

class GroupQueryDecoder {
 public:
  explicit GroupQueryDecoder(const GroupQueryConfig& config) : c_(config) {
    const graph::ValueId ids = input("input_ids", DType::kS64, {{-1, "batch"}, {-1, "sequence"}});
    const graph::ValueId mask = input("attention_mask", fused_type(), {{-1, "batch"}, {-1, "total"}});
    graph::ValueId x = op("Gather", {weight("table", {c_.vocab, hidden()}), ids}, "x", {{"axis", int64_t{0}}});
    std::vector<graph::ValueId> presents;
    if (!c_.fused) make_lengths(mask);
    for (int64_t i = 0; i < c_.layers; ++i) {
      const std::string n = std::to_string(i);
      const graph::ValueId attended = c_.fused ? fused(x, mask, n, presents) : grouped(x, n, presents);
      x = op("Add", {x, op("MatMul", {attended, weight("o" + n, {hidden(), hidden()})}, "y" + n, {})}, "x" + n, {});
    }
    std::vector<graph::ValueId> outputs = {op("MatMul", {x, head()}, "logits", {})};
    if (c_.presents) outputs.insert(outputs.end(), presents.begin(), presents.end());
    graph_.set_outputs(outputs);
  }
  const graph::Graph& graph() const { return graph_; }

 private:
  using Attrs = std::vector<std::pair<std::string, graph::Attr>>;

  int64_t hidden() const { return c_.heads * c_.dim; }
  DType fused_type() const { return c_.fused ? DType::kS32 : DType::kS64; }

  graph::ValueId input(const std::string& name, DType dtype, std::vector<graph::DimInfo> dims) {
    return graph_.add_input(name, dtype, std::move(dims));
  }

  graph::ValueId constant(const std::string& name, const Shape& shape, auto&& element) {
    Tensor tensor = Tensor::allocate(DType::kF32, shape).value();
    for (int64_t i = 0; i < tensor.num_elements(); ++i) tensor.mutable_view().as<float>()[i] = element(i);
    return graph_.add_constant(name, std::move(tensor));
  }

  graph::ValueId weight(const std::string& name, const Shape& shape) {
    std::normal_distribution<float> normal(0.0F, 1.0F / std::sqrt(static_cast<float>(shape[0])));
    return constant("w/" + name, shape, [&](int64_t) { return normal(random_); });
  }

  graph::ValueId head() {
    const graph::ValueId v = weight("head", {hidden(), c_.vocab});
    if (!c_.finite) graph_.value(v).constant.mutable_view().as<float>()[7] = std::nanf("");
    return v;
  }

  graph::ValueId integer(const std::string& name, const Shape& shape, int64_t value) {
    Tensor tensor = Tensor::allocate(DType::kS64, shape).value();
    tensor.mutable_view().as<int64_t>()[0] = value;
    return graph_.add_constant(name, std::move(tensor));
  }

  graph::ValueId op(const char* kind, std::vector<graph::ValueId> inputs, const std::string& name, const Attrs& attrs,
                    const char* domain = "", const std::vector<std::string>& more = {}) {
    std::vector<std::string> outputs = {name};
    outputs.insert(outputs.end(), more.begin(), more.end());
    const graph::NodeId n = graph_.add_node(domain, kind, *domain == 0 ? 17 : 1, std::move(inputs), outputs);
    graph_.node(n).name = name;
    for (const auto& [key, value] : attrs) graph_.node(n).attrs.set(key, value);
    last_ = n;
    return graph_.node(n).outputs[0];
  }

  void make_lengths(graph::ValueId mask) {
    const graph::ValueId one = integer("one", {1}, 1);
    const graph::ValueId total = op("Gather", {op("Shape", {mask}, "shape", {}), integer("index", {}, 1)}, "length", {});
    total_ = op("Cast", {total}, "total", {{"to", int64_t{6}}});
    const graph::ValueId sum = op("ReduceSum", {mask, one}, "sum", {});
    lengths_ = op("Cast", {op("Sub", {sum, one}, "last", {})}, "lengths", {{"to", int64_t{6}}});
    const int64_t half = c_.dim / 2;
    const auto angle = [half](int64_t i) {
      return static_cast<float>(i / half) * std::pow(10000.0F, -static_cast<float>(i % half) / static_cast<float>(half));
    };
    cos_ = constant("cos", {64, half}, [&](int64_t i) { return std::cos(angle(i)); });
    sin_ = constant("sin", {64, half}, [&](int64_t i) { return std::sin(angle(i)); });
  }

  graph::ValueId grouped(graph::ValueId x, const std::string& n, std::vector<graph::ValueId>& presents) {
    std::vector<graph::ValueId> inputs;
    const auto project = [&](const std::string& name, int64_t heads) {
      return op("MatMul", {x, weight(name + n, {hidden(), heads * c_.dim})}, name + n, {});
    };
    if (c_.packed) inputs = {project("qkv", c_.heads + 2 * c_.kv_heads), graph::kNoValue, graph::kNoValue};
    else inputs = {project("q", c_.heads), project("k", c_.kv_heads), project("v", c_.kv_heads)};
    for (const char* part : {".key", ".value"}) {
      inputs.push_back(input("past_key_values." + n + part, DType::kF32,
                             {{-1, "batch"}, {c_.kv_heads, ""}, {-1, "past"}, {c_.dim, ""}}));
    }
    inputs.insert(inputs.end(), {lengths_, total_});
    if (c_.rotary) inputs.insert(inputs.end(), {cos_, sin_});
    const graph::ValueId out =
        op("GroupQueryAttention", inputs, "attended" + n,
           {{"num_heads", c_.heads}, {"kv_num_heads", c_.kv_heads}, {"do_rotary", int64_t{c_.rotary}},
            {"local_window_size", c_.window}},
           "com.microsoft", {"present." + n + ".key", "present." + n + ".value"});
    presents.insert(presents.end(), {graph_.node(last_).outputs[1], graph_.node(last_).outputs[2]});
    return out;
  }

  graph::ValueId fused(graph::ValueId x, graph::ValueId mask, const std::string& n, std::vector<graph::ValueId>& presents) {
    const graph::ValueId past = input("past_" + n, DType::kF32,
                                      {{2, ""}, {-1, "batch"}, {c_.heads, ""}, {-1, "past"}, {c_.dim, ""}});
    const graph::ValueId out =
        op("Attention", {x, weight("qkv" + n, {hidden(), 3 * hidden()}), weight("b" + n, {3 * hidden()}), mask, past},
           "attended" + n, {{"num_heads", c_.heads}, {"unidirectional", int64_t{1}}}, "com.microsoft", {"present_" + n});
    presents.push_back(graph_.node(last_).outputs[1]);
    return out;
  }

  GroupQueryConfig c_;
  graph::Graph graph_;
  std::mt19937 random_{3};
  graph::NodeId last_ = graph::kNoNode;
  graph::ValueId total_ = graph::kNoValue, lengths_ = graph::kNoValue, cos_ = graph::kNoValue, sin_ = graph::kNoValue;
};

}  // namespace sprun
