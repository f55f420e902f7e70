// Feed-forward layers of which a router chooses blocks of neurons become one sprun.SparseFfn with a mask:
//   y = down(act(up(x)) * mask)      mask [.., d_ff] of the hidden values' shape, its zeros made by a TopK of the router
// The mask is known before any weight of the layer is read, so that neither up nor down of the other blocks are. At the plan
// stage, for as many rows as gather; else mark_sparse_input finds the zeros that down reads.
#include <vector>

#include "graph/ir/pattern.h"
#include "graph/ops/sparse_ffn_gather.h"
#include "graph/passes/activation_name.h"
#include "graph/passes/ffn_layer.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"
#include "graph/passes/routed_blocks.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {

namespace {

constexpr int64_t kRows = 8;

struct Routed {
  FfnLayerMatch up, down;
  ValueId mask = kNoValue;
  double density = -1;
};

// A layer whose weights sprun.SparseFfn gathers, whole and alone.
bool usable(const Graph& graph, const FfnLayerMatch& layer) {
  const bool form = layer.form == "float" || (layer.form == "int8" && layer.x_quant != "static");
  return form && layer.stages.empty() && layer.column == 0 && layer.width == layer.n && graph.value(layer.x).dtype == DType::kF32;
}

// up's layer with its activation, inside it or behind.
std::optional<FfnLayerMatch> match_up(const Graph& graph, ValueId v) {
  if (!graph.has_one_use(v)) return std::nullopt;
  const Node* node = graph.producer(v);
  const std::string activation = node ? activation_name(*node) : "";
  const ValueId inner = activation.empty() ? v : node->inputs[0];
  auto layer = match_ffn_layer(graph, inner);
  if (!layer || layer->residual != kNoValue || !graph.has_one_use(inner)) return std::nullopt;
  if (!activation.empty() && layer->activation != "none") return std::nullopt;
  if (!activation.empty()) layer->activation = activation;
  constexpr std::string_view kKnown[] = {"none", "relu", "gelu_erf", "gelu_tanh", "silu"};
  for (std::string_view known : kKnown) {
    if (layer->activation == known && usable(graph, *layer)) return layer;
  }
  return std::nullopt;
}

std::optional<Routed> match(const Graph& graph, ValueId y) {
  Routed made;
  const auto down = match_ffn_layer(graph, y);
  if (!down || down->activation != "none" || !usable(graph, *down) || !graph.has_one_use(down->x)) return std::nullopt;
  made.down = *down;
  const Node* product = producer_is(graph, down->x, "Mul");
  if (product == nullptr) return std::nullopt;
  for (size_t i = 0; i < 2; ++i) {
    const ValueId mask = product->inputs[i], hidden = product->inputs[1 - i];
    const auto density = routed_density(graph, mask);
    const auto up = density ? match_up(graph, hidden) : std::nullopt;
    const auto &a = graph.value(mask).shape, &b = graph.value(hidden).shape;
    if (!up || !a || !b || *a != *b || graph.value(mask).dtype != DType::kF32) continue;
    if (up->n != down->k || up->form != down->form || up->precision != down->precision || up->x_quant != down->x_quant) continue;
    made.up = *up, made.mask = mask, made.density = *density;
    return made;
  }
  return std::nullopt;
}

void set_layer(AttrMap& attrs, std::vector<ValueId>& inputs, const std::string& prefix, size_t at, const FfnLayerMatch& layer) {
  attrs.set(prefix + "_form", layer.form);
  attrs.set(prefix + "_trans", int64_t{layer.trans});
  if (!layer.x_quant.empty()) attrs.set(prefix + "_x_quant", layer.x_quant);
  if (!layer.precision.empty()) attrs.set(prefix + "_precision", layer.precision);
  attrs.set(prefix + "_n", layer.n);
  attrs.set(prefix + "_k", layer.k);
  inputs[at] = layer.weight, inputs[at + 1] = layer.scale, inputs[at + 2] = layer.zero, inputs[at + 3] = layer.bias;
}

bool fuse_at(Graph& graph, NodeId n, PassContext& ctx) {
  const ValueId y = graph.node(n).outputs[0];
  const auto ffn = match(graph, y);
  const auto& shape = ffn ? graph.value(ffn->up.x).shape : graph.value(y).shape;
  if (!ffn || !shape || shape->rank() < 1) return false;
  const int64_t rows = shape->num_elements(0, shape->rank() - 1);
  const auto weights = ffn->down.form == "int8" ? kernels::FfnWeights::kInt8 : kernels::FfnWeights::kF32;
  std::string against = std::to_string(rows) + " rows, up to " + std::to_string(kRows) + " are gathered";
  if (rows <= kRows) against = reason_against_union(ffn->density, rows, weights);
  if (!against.empty()) {
    note_miss(ctx, graph.node(n), "fuse_routed_ffn", "is the second layer of routed blocks whose first stays dense: " + against);
    return false;
  }
  std::vector<ValueId> inputs(FfnInput::kCount, kNoValue);
  inputs[FfnInput::kXGate] = inputs[FfnInput::kXUp] = ffn->up.x;
  inputs[FfnInput::kMask] = ffn->mask;
  inputs[FfnInput::kResidual] = ffn->down.residual;
  AttrMap attrs;
  set_layer(attrs, inputs, "up", FfnInput::kUp, ffn->up);
  set_layer(attrs, inputs, "down", FfnInput::kDown, ffn->down);
  attrs.set("pattern", std::string("routed blocks FFN"));
  attrs.set("select", std::string("all"));
  attrs.set("gated", int64_t{1});
  attrs.set("d_ff", ffn->up.n);
  attrs.set("up_activation", ffn->up.activation);
  attrs.set("density", static_cast<float>(ffn->density));
  const NodeId made = take_over(graph, y, "sprun", "SparseFfn", 1, std::move(inputs));
  graph.node(made).attrs = std::move(attrs);
  return true;
}

}  // namespace

Result<int> pass_fuse_routed_ffn(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    const Node& node = graph.node(n);
    if (!node.dead && is_linear(node) && node.outputs.size() == 1 && fuse_at(graph, n, ctx)) ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
