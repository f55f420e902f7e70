// What follows a linear layer is done on its result while that is in registers: y = act(x W^T + bias) + residual.
// A bias is a constant row added directly after the product; a residual has the shape of the result (plan stage). A
// layer with 8-bit weights also quantises its result, with the constants of a QuantizeLinear.
#include <utility>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/activation_name.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"
#include "graph/passes/quantize_params.h"

namespace sprun::graph {

namespace {

class Epilogue {
 public:
  Epilogue(Graph& graph, NodeId linear) : graph_(graph), linear_(linear) {}

  // Takes in following nodes as long as one fits; returns how many.
  int run() {
    int taken = 0;
    while (linear().attrs.get_int("num_weights", 1) == 1 && take_next()) ++taken;
    return taken;
  }

 private:
  Node& linear() { return graph_.node(linear_); }
  LinearLayout layout() { return linear_layout(linear()); }
  bool has(size_t input) { return linear().input(input) != kNoValue; }
  bool has_activation() { return linear().attrs.get_string("activation", "none") != "none"; }

  bool take_next() {
    if (layout().int8 && has(layout().y_scale())) return false;
    return take_bias() || take_activation() || take_residual() || take_quantize();
  }

  // The result of `next` becomes the result of the linear layer.
  void absorb(NodeId next) {
    const ValueId inner = linear().outputs[0];
    graph_.move_output(next, 0, linear_, 0);
    graph_.remove_node(next);
    graph_.value(inner).producer = kNoNode;
  }

  bool take_bias() {
    if (has(layout().bias(0)) || has(layout().residual()) || has_activation()) return false;
    const ValueId y = linear().outputs[0];
    const NodeId add = only_user(graph_, y);
    if (add == kNoNode || !graph_.node(add).is("Add")) return false;
    const ValueId bias = other_input(graph_.node(add), y);
    const Tensor* tensor = graph_.constant(bias);
    const int64_t n = linear_width(graph_, linear(), 0);
    if (tensor == nullptr || tensor->dtype() != DType::kF32 || tensor->shape() != Shape{n}) return false;
    graph_.set_input(linear_, layout().bias(0), bias);
    absorb(add);
    return true;
  }

  bool take_activation() {
    if (has(layout().residual()) || has_activation()) return false;
    const NodeId next = only_user(graph_, linear().outputs[0]);
    const std::string activation = next == kNoNode ? "" : activation_name(graph_.node(next));
    if (activation.empty()) return false;
    linear().attrs.set("activation", activation);
    absorb(next);
    return true;
  }

  bool take_residual() {
    const ValueId y = linear().outputs[0];
    const NodeId add = only_user(graph_, y);
    if (has(layout().residual()) || add == kNoNode || !graph_.node(add).is("Add")) return false;
    const ValueId other = other_input(graph_.node(add), y);
    if (other == kNoValue || graph_.constant(other)) return false;
    const Value &a = graph_.value(y), &b = graph_.value(other);
    if (!a.shape || !b.shape || *a.shape != *b.shape || b.dtype != DType::kF32) return false;
    graph_.set_input(linear_, layout().residual(), other);
    absorb(add);
    return true;
  }

  bool take_quantize() {
    if (!layout().int8) return false;
    const NodeId next = only_user(graph_, linear().outputs[0]);
    if (next == kNoNode || !graph_.node(next).is("QuantizeLinear")) return false;
    const auto params = quantize_params(graph_, graph_.node(next));
    if (!params || (params->zero == kNoValue && params->dtype != DType::kU8)) return false;
    graph_.set_input(linear_, layout().y_scale(), params->scale);
    if (params->zero != kNoValue) graph_.set_input(linear_, layout().y_zero(), params->zero);
    absorb(next);
    return true;
  }

  Graph& graph_;
  NodeId linear_;
};

}  // namespace

Result<int> pass_fuse_linear_epilogue(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  // Last layer first: of two layers summed, the later one takes the other as its residual.
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const Node& node = graph.node(*it);
    if (!node.dead && is_linear(node)) fused += Epilogue(graph, *it).run();
  }
  return fused;
}

}  // namespace sprun::graph
