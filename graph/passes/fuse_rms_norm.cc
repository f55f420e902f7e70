// RMSNorm spelled out by exporters becomes one RMSNormalization:
//   y = x * (mean(x^2) + eps)^(-1/2) * gamma
// The inverse root is Div(x, Sqrt), Mul(x, Reciprocal(Sqrt)), Mul(x, Div(1, Sqrt)) or Mul(x, Pow(., -0.5)). Sliced models
// (SliceGPT) divide the sum over the d values that are left by the width D of before and have no gamma: with
// sum / D = mean d / D that is the norm with eps D / d and a gamma of sqrt(D / d) throughout.
#include <algorithm>
#include <cmath>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {

namespace {

struct MeanSquare {
  ValueId x = kNoValue;
  double epsilon = 0;
  double divisor = 0;  // of the sum of squares; 0: the width of x
};

// x if v = x^2.
ValueId square_root(const Graph& graph, ValueId v) {
  if (const Node* pow = producer_is(graph, v, "Pow"))
    return scalar_constant(graph, pow->input(1)) == 2.0 ? pow->input(0) : kNoValue;
  const Node* mul = producer_is(graph, v, "Mul");
  return mul != nullptr && mul->input(0) == mul->input(1) ? mul->input(0) : kNoValue;
}

// v = mean(x^2) + eps, or sum(x^2) / D + eps
std::optional<MeanSquare> match_mean_square(const Graph& graph, ValueId v) {
  const Node* add = producer_is(graph, v, "Add");
  if (add == nullptr) return std::nullopt;
  ValueId mean_value = kNoValue;
  const ValueId eps = pick_input(*add, [&](ValueId i) { return scalar_constant(graph, i).has_value(); }, &mean_value);
  if (eps == kNoValue) return std::nullopt;
  MeanSquare match{.epsilon = *scalar_constant(graph, eps)};
  const Node* reduce = producer_is(graph, mean_value, "ReduceMean");
  if (const Node* div = producer_is(graph, mean_value, "Div")) {
    match.divisor = scalar_constant(graph, div->input(1)).value_or(0);
    if (!(match.divisor > 0)) return std::nullopt;
    reduce = producer_is(graph, div->input(0), "ReduceSum");
  }
  if (reduce == nullptr || !reduces_last_axis(graph, *reduce)) return std::nullopt;
  match.x = square_root(graph, reduce->input(0));
  return match.x == kNoValue ? std::nullopt : std::optional(match);
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

// v becomes the norm of match.x; gamma: what multiplies it, kNoValue for nothing. False where the width must be known
// and is not.
bool make_norm(Graph& graph, ValueId v, const MeanSquare& match, ValueId gamma) {
  double epsilon = match.epsilon;
  if (gamma == kNoValue || match.divisor > 0) {
    const int64_t width = last_size(graph, match.x);
    if (width <= 0 || (gamma != kNoValue && graph.constant(gamma)->num_elements() != width)) return false;
    const double ratio = match.divisor > 0 ? match.divisor / static_cast<double>(width) : 1;
    auto scale = Tensor::allocate(DType::kF32, Shape{width});
    if (!scale.ok()) return false;
    float* factors = scale->mutable_view().as<float>();
    for (int64_t i = 0; i < width; ++i)
      factors[i] = static_cast<float>(std::sqrt(ratio) * (gamma == kNoValue ? 1.0F : graph.constant(gamma)->as<float>()[i]));
    gamma = graph.add_constant(graph.unique_name(graph.value(v).name + "_gamma"), std::move(*scale));
    epsilon *= ratio;
  }
  const NodeId made = take_over(graph, v, "", "RMSNormalization", 23, {match.x, gamma});
  graph.node(made).attrs.set("axis", int64_t{-1});
  graph.node(made).attrs.set("epsilon", static_cast<float>(epsilon));
  return true;
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
    if (match && make_norm(graph, scale.outputs[0], *match, gamma)) ++fused;
  }
  for (NodeId n : order) {
    const Node& node = graph.node(n);
    if (node.dead || !(node.is("Mul") || node.is("Div"))) continue;
    const auto match = match_normalised(graph, node.outputs[0]);
    if (match && make_norm(graph, node.outputs[0], *match, kNoValue)) ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
