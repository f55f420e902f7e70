// RMSNorm spelled out by exporters becomes one RMSNormalization:
//   y = x * (mean(x^2) + eps)^(-1/2) * gamma
// The inverse root is Div(x, Sqrt), Mul(x, Reciprocal(Sqrt)), Mul(x, Div(1, Sqrt)) or Mul(x, Pow(., -0.5)).
#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

struct MeanSquare {
  ValueId x = kNoValue;
  float epsilon = 0;
};

// v = mean(x^2) + eps
std::optional<MeanSquare> match_mean_square(const Graph& graph, ValueId v) {
  const Node* add = producer_is(graph, v, "Add");
  if (add == nullptr) return std::nullopt;
  ValueId mean_value = kNoValue;
  const ValueId eps = pick_input(*add, [&](ValueId i) { return scalar_constant(graph, i).has_value(); }, &mean_value);
  const Node* mean = producer_is(graph, mean_value, "ReduceMean");
  if (eps == kNoValue || mean == nullptr || !reduces_last_axis(graph, *mean)) return std::nullopt;
  const float epsilon = static_cast<float>(*scalar_constant(graph, eps));
  if (const Node* pow = producer_is(graph, mean->input(0), "Pow")) {
    if (scalar_constant(graph, pow->input(1)) != 2.0) return std::nullopt;
    return MeanSquare{pow->input(0), epsilon};
  }
  const Node* mul = producer_is(graph, mean->input(0), "Mul");
  if (mul == nullptr || mul->input(0) != mul->input(1)) return std::nullopt;
  return MeanSquare{mul->input(0), epsilon};
}

// The radicand r if v = r^(-1/2), else kNoValue.
ValueId inverse_root(const Graph& graph, ValueId v) {
  if (const Node* pow = producer_is(graph, v, "Pow")) {
    return scalar_constant(graph, pow->input(1)) == -0.5 ? pow->input(0) : kNoValue;
  }
  const Node* root = nullptr;
  if (const Node* reciprocal = producer_is(graph, v, "Reciprocal")) {
    root = producer_is(graph, reciprocal->input(0), "Sqrt");
  } else if (const Node* div = producer_is(graph, v, "Div"); div && scalar_constant(graph, div->input(0)) == 1.0) {
    root = producer_is(graph, div->input(1), "Sqrt");
  }
  return root ? root->input(0) : kNoValue;
}

std::optional<MeanSquare> match_normalised(const Graph& graph, ValueId v) {
  if (const Node* div = producer_is(graph, v, "Div")) {
    const Node* root = producer_is(graph, div->input(1), "Sqrt");
    if (root == nullptr) return std::nullopt;
    const auto match = match_mean_square(graph, root->input(0));
    return match && match->x == div->input(0) ? match : std::nullopt;
  }
  const Node* mul = producer_is(graph, v, "Mul");
  if (mul == nullptr || mul->inputs.size() != 2) return std::nullopt;
  for (size_t i = 0; i < 2; ++i) {
    const ValueId radicand = inverse_root(graph, mul->inputs[i]);
    if (radicand == kNoValue) continue;
    const auto match = match_mean_square(graph, radicand);
    if (match && match->x == mul->inputs[1 - i]) return match;
  }
  return std::nullopt;
}

}  // namespace

Result<int> pass_fuse_rms_norm(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  for (NodeId n : order) {
    if (graph.node(n).dead || !graph.node(n).is("Mul")) continue;
    const Node& scale = graph.node(n);
    ValueId normalised = kNoValue;
    const auto is_gamma = [&](ValueId v) {
      const Tensor* constant = graph.constant(v);
      return constant && constant->shape().rank() == 1 && constant->dtype() == DType::kF32;
    };
    const ValueId gamma = pick_input(scale, is_gamma, &normalised);
    if (gamma == kNoValue) continue;
    const auto match = match_normalised(graph, normalised);
    if (!match) continue;
    const NodeId made = take_over(graph, scale.outputs[0], "", "RMSNormalization", 23, {match->x, gamma});
    graph.node(made).attrs.set("axis", int64_t{-1});
    graph.node(made).attrs.set("epsilon", match->epsilon);
    ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
