#include "graph/passes/ffn_gate.h"

#include "graph/ir/pattern.h"
#include "graph/passes/activation_name.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {
namespace {

std::nullopt_t refuse(std::string* why, const std::string& text) {
  *why = text;
  return std::nullopt;
}

bool is_selector(const Node& node) {
  return node.is("sprun", "StatTopK") || node.is("sprun", "Threshold") || node.is("sprun", "TopKSelect");
}

std::string select_name(const Node& node) {
  if (node.op_type == "StatTopK") return "stat_top_k";
  return node.op_type == "Threshold" ? "threshold" : "top_k";
}

// v's only use is one node (twice, where it is squared).
bool used_once(const Graph& graph, ValueId v) { return graph.has_one_use(v); }

// The gate's layer below a selection, with an activation of its own between.
bool match_layer_below(const Graph& graph, ValueId v, FfnGateMatch& gate, std::string* why) {
  v = skip_casts(graph, v);
  const Node* node = graph.producer(v);
  std::string activation = node ? activation_name(*node) : "";
  ValueId below = activation.empty() ? v : node->inputs[0];
  if (!activation.empty() && (!used_once(graph, v) || !used_once(graph, below))) {
    *why = "gate values have other readers";
    return false;
  }
  auto layer = match_ffn_layer(graph, below);
  if (!layer || layer->residual != kNoValue || (!activation.empty() && layer->activation != "none")) return false;
  if (!activation.empty()) layer->activation = activation;
  if (layer->activation == "sigmoid" || (layer->activation != "none" && !layer->stages.empty())) return false;
  gate.layer = *layer;
  return true;
}

// A rectifier inside or behind the gate's layer.
std::optional<FfnGateMatch> match_rectified(const Graph& graph, ValueId v, FfnGateMatch gate, std::string* why) {
  gate.select = "relu";
  const ValueId inner = relu_input(graph, v);
  if (inner == kNoValue) {
    auto layer = match_ffn_layer(graph, v);
    const bool rectified = layer && (layer->activation == "relu" || layer->rectified);
    if (!rectified || layer->residual != kNoValue) return std::nullopt;
    layer->activation = "none";
    gate.layer = *layer;
    return gate;
  }
  auto layer = match_ffn_layer(graph, inner);
  if (layer && layer->activation == "relu") layer->activation = "none";  // twice is once
  if (!layer || layer->activation != "none" || layer->residual != kNoValue) return std::nullopt;
  if (!used_once(graph, skip_casts(graph, inner))) return refuse(why, "gate values have other readers");
  gate.layer = *layer;
  return gate;
}

}  // namespace

std::optional<FfnGateMatch> match_ffn_gate(const Graph& graph, ValueId v, std::string* why) {
  FfnGateMatch gate;
  v = skip_casts(graph, v);
  const Node* node = graph.producer(v);
  const ValueId hidden = v;
  if (node && (node->is("Mul") || node->is("Pow")) && node->inputs.size() == 2) {
    const ValueId root = node->inputs[0];
    const bool twice = node->is("Mul") && node->inputs[1] == root && graph.value(root).users.size() == 2;
    const bool power = node->is("Pow") && scalar_constant(graph, node->inputs[1]) == 2.0 && used_once(graph, root);
    if ((!twice && !power) || graph.is_output(root)) return std::nullopt;
    gate.square = true;
    v = skip_casts(graph, root);
    node = graph.producer(v);
  }
  if (node == nullptr) return std::nullopt;
  if (const std::string name = activation_name(*node); !name.empty() && !is_selector(*node)) {
    const ValueId below = skip_casts(graph, node->inputs[0]);
    const Node* selector = graph.producer(below);
    if (selector && is_selector(*selector)) {
      if (name == "sigmoid") return refuse(why, "sigmoid of 0 is not 0: nothing can be left out");
      gate.activation = name;
      if (!used_once(graph, node->inputs[0]) || !used_once(graph, below)) return refuse(why, "thresholded values have other readers");
      v = below;
      node = selector;
    }
  }
  if (!is_selector(*node)) return match_rectified(graph, v, std::move(gate), why);
  if (v != hidden && !gate.square && !used_once(graph, v)) return refuse(why, "thresholded values have other readers");
  gate.select = select_name(*node);
  gate.selector = node;
  gate.threshold = node->input(1);
  if (gate.threshold != kNoValue && !graph.constant(gate.threshold)) return refuse(why, "the threshold is not a constant");
  if (!used_once(graph, node->inputs[0])) return refuse(why, "gate values have other readers");
  if (!match_layer_below(graph, node->inputs[0], gate, why)) {
    return refuse(why, why->empty() ? "what is thresholded is no linear layer's result with constant weights" : *why);
  }
  return gate;
}

}  // namespace sprun::graph
