// BatchNormalization (inference) after a Conv with constant weights is folded into the weights:
//   W' = W * gamma / sqrt(var + eps) per output channel;  b' = (b - mean) * gamma / sqrt(var + eps) + beta
#include <cmath>
#include <cstring>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

// The rank-1 f32 constant of n elements behind v, or nullptr.
const float* vector_constant(const Graph& graph, ValueId v, int64_t n) {
  const Tensor* tensor = graph.constant(v);
  const bool fits = tensor && tensor->dtype() == DType::kF32 && tensor->num_elements() == n && tensor->is_aligned();
  return fits ? tensor->as<float>() : nullptr;
}

struct Folded {
  Tensor weight, bias;
};

std::optional<Folded> fold(const Graph& graph, const Node& conv, const Node& norm) {
  const Tensor* weight = graph.constant(conv.input(1));
  if (weight == nullptr || weight->dtype() != DType::kF32 || weight->shape().rank() < 3) return std::nullopt;
  const int64_t channels = weight->shape()[0];
  const float* params[4];
  for (size_t i = 0; i < 4; ++i) {
    params[i] = vector_constant(graph, norm.input(i + 1), channels);
    if (params[i] == nullptr) return std::nullopt;
  }
  const float* old_bias = conv.input(2) == kNoValue ? nullptr : vector_constant(graph, conv.input(2), channels);
  if (conv.input(2) != kNoValue && old_bias == nullptr) return std::nullopt;
  auto new_weight = Tensor::copy_of(weight->view());
  auto new_bias = Tensor::allocate(DType::kF32, {channels});
  if (!new_weight.ok() || !new_bias.ok()) return std::nullopt;
  const double epsilon = norm.attrs.get_float("epsilon", 1e-5f);
  const int64_t per_channel = channels > 0 ? weight->num_elements() / channels : 0;
  float* w = new_weight->mutable_view().as<float>();
  float* b = new_bias->mutable_view().as<float>();
  for (int64_t c = 0; c < channels; ++c) {
    const double factor = params[0][c] / std::sqrt(params[3][c] + epsilon);
    for (int64_t i = 0; i < per_channel; ++i) {
      w[c * per_channel + i] = static_cast<float>(w[c * per_channel + i] * factor);
    }
    b[c] = static_cast<float>(((old_bias ? old_bias[c] : 0.0) - params[2][c]) * factor + params[1][c]);
  }
  return Folded{std::move(*new_weight), std::move(*new_bias)};
}

bool is_inference(const Node& norm) {
  for (size_t i = 1; i < norm.outputs.size(); ++i) {
    if (norm.outputs[i] != kNoValue) return false;
  }
  return norm.attrs.get_int("training_mode", 0) == 0;
}

}  // namespace

Result<int> pass_fold_batch_norm(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int folded = 0;
  for (NodeId n : order) {
    const Node& norm = graph.node(n);
    if (norm.dead || !norm.is("BatchNormalization") || norm.inputs.size() != 5 || !is_inference(norm)) continue;
    const Node* conv = producer_is(graph, norm.inputs[0], "Conv");
    if (conv == nullptr || !graph.has_one_use(norm.inputs[0])) continue;
    auto result = fold(graph, *conv, norm);
    if (!result) continue;
    const AttrMap attrs = conv->attrs;
    const int version = conv->version;
    const ValueId x = conv->inputs[0];
    const std::string base = conv->name;
    const ValueId weight = graph.add_constant(base + "/folded_weight", std::move(result->weight));
    const ValueId bias = graph.add_constant(base + "/folded_bias", std::move(result->bias));
    const NodeId made = take_over(graph, graph.node(n).outputs[0], "", "Conv", version, {x, weight, bias});
    graph.node(made).attrs = attrs;
    ++folded;
  }
  return folded;
}

}  // namespace sprun::graph
