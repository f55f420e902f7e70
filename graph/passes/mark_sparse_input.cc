// Linear layers whose input has exact zeros read only the weights of inputs that are not zero. The layer gets the
// attributes input_zeros, a name for people, and input_density, the part that is expected not to be zero (-1: not known).
//   thresholds       TEAL, NNCF, Shrink; exact and statistical top-k (what fuse_threshold and its kin made)
//   routed blocks    a product with a mask that a TopK of a router makes: OneHot, ScatterElements, a comparison
//   masks            Where(.., 0, x), ScatterND of zeros (boolean indexing), products with them
//   rectifiers       where the hidden values of a feed-forward layer have other readers, only its second layer is left
// The node that makes the zeros stays. Leaving zeros out is exact whatever made them, and the layer counts them when it
// runs, so that a mark costs nothing where there are few. Feed-forward layers have taken their own before
// (fuse_sparse_ffn).
#include <algorithm>
#include <span>
#include <string_view>

#include "graph/ir/pattern.h"
#include "graph/ops/select_rows.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"
#include "graph/passes/routed_blocks.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {

namespace {

struct Zeros {
  std::string name;
  double density = -1;
};

std::optional<Zeros> of_selector(const Graph& graph, const Node& node, ValueId x) {
  Zeros zeros;
  std::string select;
  if (node.op_type == "Threshold") {
    const bool absolute = node.attrs.get_int("absolute", 0) != 0;
    const bool shrinks = node.attrs.get_float("shift", 0.0F) != 0.0F;
    zeros.name = shrinks ? "shrunk input" : absolute ? "thresholded input (TEAL)" : "input above a threshold";
    select = "threshold";
  } else if (node.op_type == "TopKSelect") {
    zeros.name = "exact top-k of the input";
    select = "top_k";
  } else if (node.op_type == "StatTopK") {
    zeros.name = "statistical top-k of the input";
    select = "stat_top_k";
  } else {
    return std::nullopt;
  }
  const auto selection = selection_of(select, node.attrs);
  const int64_t width = last_size(graph, x);
  if (selection.ok() && width > 0) zeros.density = expected_density(*selection, width);
  return zeros;
}

std::optional<Zeros> of_router(const Graph& graph, ValueId mask) {
  const auto density = routed_density(graph, mask);
  return density ? std::optional(Zeros{"routed blocks", *density}) : std::nullopt;
}

// Zeros of a shape that may only be known when running.
bool fills_zero(const Graph& graph, ValueId v) {
  const Node* expand = producer_is(graph, v, "Expand");
  return is_zero(graph, expand ? expand->inputs[0] : v);
}

std::optional<Zeros> zeros_of(const Graph& graph, ValueId x, int depth = 0) {
  constexpr int kDeepest = 6;
  const Node* node = graph.producer(x);
  if (node == nullptr || depth > kDeepest) return std::nullopt;
  if (node->domain == "sprun") {
    if (auto zeros = of_selector(graph, *node, x)) return zeros;
    const bool relu = is_linear(*node) && node->attrs.get_string("activation", "none") == "relu" &&
                      node->input(linear_layout(*node).residual()) == kNoValue;
    return relu ? std::optional(Zeros{"rectified input", -1}) : std::nullopt;
  }
  if (!node->domain.empty()) return std::nullopt;
  if (node->is("Relu")) return Zeros{"rectified input", -1};
  if (node->is("Where") && (fills_zero(graph, node->inputs[1]) || fills_zero(graph, node->inputs[2]))) {
    return Zeros{"masked input", -1};
  }
  if (node->is("ScatterND") && fills_zero(graph, node->inputs[2])) return Zeros{"masked input", -1};
  if (node->is("Mul")) {
    for (ValueId factor : {node->inputs[0], node->inputs[1]}) {
      if (auto zeros = zeros_of(graph, factor, depth + 1)) return zeros;
    }
    for (ValueId factor : {node->inputs[0], node->inputs[1]}) {
      if (auto zeros = of_router(graph, factor)) return zeros;
    }
    return std::nullopt;
  }
  const bool moved = node->is("Reshape") || node->is("Identity") || node->is("Cast");
  return moved ? zeros_of(graph, node->inputs[0], depth + 1) : std::nullopt;
}

bool mark(Graph& graph, NodeId n) {
  Node& node = graph.node(n);
  const bool plain = node.is("sprun", "Linear") && node.attrs.get_string("precision", "f32") == "f32";
  if ((!plain && !node.is("sprun", "LinearDequant")) || node.attrs.find("input_zeros") != nullptr) return false;
  const auto zeros = zeros_of(graph, node.inputs[0]);
  if (!zeros) return false;
  node.attrs.set("input_zeros", zeros->name);
  node.attrs.set("input_density", static_cast<float>(zeros->density));
  return true;
}

}  // namespace

Result<int> pass_mark_sparse_input(Graph& graph, PassContext&) {
  int marked = 0;
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    if (!graph.node(n).dead && mark(graph, n)) ++marked;
  }
  return marked;
}

}  // namespace sprun::graph
