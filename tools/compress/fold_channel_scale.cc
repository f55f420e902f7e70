// The way back from a scaled value to the constants that make it.
#include <algorithm>
#include <vector>

#include "graph/ir/graph.h"
#include "tools/compress/constant_values.h"
#include "tools/compress/graph_edit.h"
#include "tools/compress/smoothing.h"

namespace sprun::compress {

using graph::Graph;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

// A constant that takes the factors along its last axis.
struct Edit {
  NodeId node;
  size_t slot;
};

class WayBack {
 public:
  WayBack(const Graph& graph, int64_t channels) : graph_(graph), channels_(channels) {}

  // Finds the constants that can scale v by a factor per channel, or returns false. Edits are
  // complete when it returns true; a failed branch leaves none.
  bool find(ValueId v) {
    const size_t before = edits_.size();
    const bool found = is_read_once(v) && visit(graph_.value(v).producer);
    if (!found) edits_.resize(before);
    return found;
  }
  const std::vector<Edit>& edits() const { return edits_; }

 private:
  // By what computes with its elements, that is.
  bool is_read_once(ValueId v) const {
    int64_t readers = 0;
    for (NodeId n : graph_.value(v).users) {
      if (graph_.node(n).is("Shape") || graph_.node(n).is("Size")) continue;
      readers += std::count(graph_.node(n).inputs.begin(), graph_.node(n).inputs.end(), v);
    }
    return readers == 1 && !graph_.is_output(v);
  }

  bool visit(NodeId n) {
    if (n == graph::kNoNode) return false;
    const Node& node = graph_.node(n);
    if (node.is("Relu")) return find(node.input(0));
    if (node.is("Add")) return visit_sum(n);
    if (node.is("Mul")) return visit_product(n);
    if (is_norm(node)) return visit_norm(n);
    if (node.is("MatMul")) return visit_layer(n);
    return false;
  }

  // Norms over the last axis that multiply by a scale and perhaps add a shift.
  static bool is_norm(const Node& node) {
    return node.is("LayerNormalization") || node.is("RMSNormalization") ||
           node.is("SimplifiedLayerNormalization");
  }
  bool visit_norm(NodeId n) {
    const Node& node = graph_.node(n);
    return take(n, 1) && (node.input(2) == graph::kNoValue || take(n, 2));
  }

  // (a + b) f = a f + b f.
  bool visit_sum(NodeId n) {
    const Node& node = graph_.node(n);
    for (size_t slot = 0; slot < 2; ++slot) {
      if (take(n, slot)) return find(node.input(1 - slot));
    }
    return find(node.input(0)) && find(node.input(1));
  }

  // One factor is enough, whichever can take it.
  bool visit_product(NodeId n) {
    const Node& node = graph_.node(n);
    return take(n, 0) || take(n, 1) || find(node.input(0)) || find(node.input(1));
  }

  // The weights [K, N] of a linear layer, or the scales per output of its int8 codes.
  bool visit_layer(NodeId n) {
    const Node& node = graph_.node(n);
    const Tensor* weight = graph_.constant(node.input(1));
    if (weight != nullptr) return weight->shape().rank() == 2 && take(n, 1);
    const NodeId d = graph_.value(node.input(1)).producer;
    if (d == graph::kNoNode || !graph_.node(d).is("DequantizeLinear")) return false;
    const Tensor* codes = graph_.constant(graph_.node(d).input(0));
    return codes != nullptr && codes->shape().rank() == 2 &&
           graph_.node(d).attrs.get_int("axis", 1) == 1 && graph_.has_one_use(node.input(1)) &&
           take(d, 1);
  }

  // A float32 constant whose last axis is the channels.
  bool take(NodeId n, size_t slot) {
    const Tensor* t = graph_.constant(graph_.node(n).input(slot));
    if (t == nullptr || t->dtype() != DType::kF32 || t->shape().rank() < 1 ||
        t->shape().back() != channels_)
      return false;
    edits_.push_back({n, slot});
    return true;
  }

  const Graph& graph_;
  int64_t channels_;
  std::vector<Edit> edits_;
};

}  // namespace

Result<bool> fold_channel_scale(Graph& graph, ValueId divided) {
  const NodeId mul = graph.value(divided).producer;
  const ValueId x = graph.node(mul).input(0);
  const Tensor* constant = graph.constant(graph.node(mul).input(1));
  const int64_t channels = constant->num_elements();
  const Matrix factors = read_floats(constant->data(), 1, channels);
  WayBack way(graph, channels);
  if (!way.find(x)) return false;
  for (const Edit& edit : way.edits()) {
    const Tensor& old = *graph.constant(graph.node(edit.node).input(edit.slot));
    Matrix values = read_floats(old.data(), old.num_elements() / channels, channels);
    values = values * factors.row(0).asDiagonal();
    SPRUN_ASSIGN(Tensor tensor, float_tensor(values, old.shape()));
    replace_constant_input(graph, edit.node, edit.slot, std::move(tensor));
  }
  graph.replace_uses(divided, x);
  graph.remove_node(mul);
  return true;
}

}  // namespace sprun::compress
