// LayerNorm spelled out by exporters becomes one LayerNormalization:
//   d = x - mean(x);  y = d / sqrt(mean(d^2) + eps) * gamma + beta
// d^2 is Pow(d, 2) or Mul(d, d); the two d may be different Sub nodes. gamma and beta are rank-1 constants.
#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

// x if v is x - mean(x over the last axis), else kNoValue.
ValueId centred(const Graph& graph, ValueId v) {
  const Node* sub = producer_is(graph, v, "Sub");
  if (sub == nullptr) return kNoValue;
  const Node* mean = producer_is(graph, sub->input(1), "ReduceMean");
  if (mean == nullptr || mean->input(0) != sub->input(0) || !reduces_last_axis(graph, *mean)) return kNoValue;
  return sub->input(0);
}

// d if v is d * d, else kNoValue.
ValueId squared(const Graph& graph, ValueId v) {
  if (const Node* pow = producer_is(graph, v, "Pow")) {
    return scalar_constant(graph, pow->input(1)) == 2.0 ? pow->input(0) : kNoValue;
  }
  const Node* mul = producer_is(graph, v, "Mul");
  return mul && mul->input(0) == mul->input(1) ? mul->input(0) : kNoValue;
}

struct Normalised {
  ValueId x = kNoValue;
  float epsilon = 0;
};

// Matches (x - mean) / sqrt(var + eps) at the Div node.
std::optional<Normalised> match_normalised(const Graph& graph, const Node& div) {
  const ValueId x = centred(graph, div.input(0));
  const Node* root = producer_is(graph, div.input(1), "Sqrt");
  const Node* add = root ? producer_is(graph, root->input(0), "Add") : nullptr;
  if (x == kNoValue || add == nullptr) return std::nullopt;
  ValueId variance = kNoValue;
  const ValueId eps = pick_input(*add, [&](ValueId v) { return scalar_constant(graph, v).has_value(); }, &variance);
  if (eps == kNoValue) return std::nullopt;
  const Node* mean = producer_is(graph, variance, "ReduceMean");
  if (mean == nullptr || !reduces_last_axis(graph, *mean)) return std::nullopt;
  const ValueId d = squared(graph, mean->input(0));
  if (d == kNoValue || centred(graph, d) != x) return std::nullopt;
  return Normalised{x, static_cast<float>(*scalar_constant(graph, eps))};
}

// If v's only user is `op` with a rank-1 constant, that constant and the node's output; else {kNoValue, v}.
std::pair<ValueId, ValueId> follow(const Graph& graph, ValueId v, std::string_view op) {
  const NodeId user = only_user(graph, v);
  if (user == kNoNode || !graph.node(user).is(op)) return {kNoValue, v};
  const ValueId other = other_input(graph.node(user), v);
  const Tensor* constant = graph.constant(other);
  if (constant == nullptr || constant->shape().rank() != 1) return {kNoValue, v};
  return {other, graph.node(user).outputs[0]};
}

}  // namespace

Result<int> pass_fuse_layer_norm(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    if (graph.node(n).dead || !graph.node(n).is("Div")) continue;
    const auto match = match_normalised(graph, graph.node(n));
    if (!match) continue;
    const auto [gamma, scaled] = follow(graph, graph.node(n).outputs[0], "Mul");
    if (gamma == kNoValue) {
      ctx.note("fuse_layer_norm: '" + graph.node(n).name + "' is not followed by a constant scale of rank 1");
      continue;
    }
    const auto [beta, result] = follow(graph, scaled, "Add");
    std::vector<ValueId> inputs = {match->x, gamma};
    if (beta != kNoValue) inputs.push_back(beta);
    const NodeId made = take_over(graph, result, "", "LayerNormalization", 17, inputs);
    graph.node(made).attrs.set("axis", int64_t{-1});
    graph.node(made).attrs.set("epsilon", match->epsilon);
    ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
