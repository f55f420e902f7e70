// What follows a convolution is done on its result while that is in registers:
//   y = out_scale * act(conv(x, W) + b + z) + out_shift        (sprun.Conv, see graph/ops/conv.cc)
// A constant factor or term directly after the convolution goes into W and b. Then comes, at the
// plan stage, a tensor z of the result's shape; then an activation; then a scalar factor and term.
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

constexpr size_t kWeight = 1, kBias = 2, kAdded = 3;

struct Activation {
  std::string name;
  std::vector<float> params;
};

// A bound of Clip: attribute or constant input. nullopt if it is not known.
std::optional<float> clip_bound(const Graph& graph, const Node& node, size_t input,
                                const char* attr, float fallback) {
  if (node.version < 11) return node.attrs.get_float(attr, fallback);
  if (node.input(input) == kNoValue) return fallback;
  const auto value = scalar_constant(graph, node.input(input));
  return value ? std::optional(static_cast<float>(*value)) : std::nullopt;
}

std::optional<Activation> clip_of(const Graph& graph, const Node& node) {
  constexpr float kMax = std::numeric_limits<float>::max();
  const auto low = clip_bound(graph, node, 1, "min", -kMax);
  const auto high = clip_bound(graph, node, 2, "max", kMax);
  if (!low || !high) return std::nullopt;
  return Activation{"Clip", {*low, *high}};
}

std::optional<Activation> activation_of(const Graph& graph, const Node& node) {
  const AttrMap& attrs = node.attrs;
  for (const char* name : {"Relu", "Sigmoid", "Tanh", "HardSwish"}) {
    if (node.is(name)) return Activation{name, {}};
  }
  if (node.is("LeakyRelu")) return Activation{"LeakyRelu", {attrs.get_float("alpha", 0.01f)}};
  if (node.is("HardSigmoid")) {
    return Activation{"HardSigmoid",
                      {attrs.get_float("alpha", 0.2f), attrs.get_float("beta", 0.5f)}};
  }
  if (node.is("Clip")) return clip_of(graph, node);
  if (node.is("Gelu") && attrs.get_string("approximate", "none") == "none")
    return Activation{"Gelu", {}};
  if (node.is("com.microsoft", "Gelu")) return Activation{"Gelu", {}};
  if (node.is("com.microsoft", "QuickGelu") && attrs.get_float("alpha", 1.702f) == 1.0f)
    return Activation{"Silu", {}};
  return std::nullopt;
}

// v as one f32 value per channel of a result with `rank` axes, channels at axis 1; a single value
// counts for all.
std::optional<std::vector<double>> channel_values(const Graph& graph, ValueId v, int64_t channels,
                                                  int rank) {
  const Tensor* tensor = graph.constant(v);
  if (tensor == nullptr || tensor->dtype() != DType::kF32 || !tensor->is_aligned())
    return std::nullopt;
  const Shape& shape = tensor->shape();
  const int64_t count = shape.num_elements();
  if (shape.rank() > rank || (count != 1 && count != channels)) return std::nullopt;
  const int axis = 1 - (rank - shape.rank());  // of the channels in v
  if (count != 1 && (axis < 0 || shape[axis] != channels)) return std::nullopt;
  std::vector<double> values(static_cast<size_t>(channels));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<double>(tensor->as<float>()[count == 1 ? 0 : i]);
  return values;
}

// v -> factor * v + term, per channel.
struct Affine {
  std::vector<double> factor, term;
};

// `node` as an affine map of y by a constant.
std::optional<Affine> affine_of(const Graph& graph, const Node& node, ValueId y, int64_t channels,
                                int rank) {
  const ValueId other = other_input(node, y);
  if (other == kNoValue) return std::nullopt;
  auto values = channel_values(graph, other, channels, rank);
  if (!values) return std::nullopt;
  const std::vector<double> ones(values->size(), 1.0), zeros(values->size(), 0.0);
  const bool first = node.inputs[0] == y;
  if (node.is("Mul")) return Affine{std::move(*values), zeros};
  if (node.is("Add")) return Affine{ones, std::move(*values)};
  if (node.is("Sub") && first) {
    for (double& v : *values) v = -v;
    return Affine{ones, std::move(*values)};
  }
  if (node.is("Sub")) return Affine{std::vector<double>(values->size(), -1.0), std::move(*values)};
  if (!node.is("Div") || !first) return std::nullopt;
  for (double& v : *values) v = 1.0 / v;
  return Affine{std::move(*values), zeros};
}

bool all_equal(const std::vector<double>& v) {
  for (double x : v) {
    if (x != v[0] || !std::isfinite(x)) return false;
  }
  return !v.empty();
}

class ConvFusion {
 public:
  ConvFusion(Graph& graph, NodeId conv) : graph_(graph), conv_(conv) {
    const Tensor* weight = graph.constant(node().input(kWeight));
    if (weight == nullptr || weight->dtype() != DType::kF32 || weight->shape().rank() < 3) return;
    channels_ = weight->shape()[0];
    rank_ = weight->shape().rank();
  }

  // Takes in following nodes as long as one fits; returns how many.
  int run() {
    int taken = 0;
    while (channels_ > 0 && take_next()) ++taken;
    return taken;
  }

 private:
  Node& node() { return graph_.node(conv_); }
  bool has(size_t input) { return node().input(input) != kNoValue; }
  bool has_activation() { return !node().attrs.get_string("activation", "").empty(); }
  float out_scale() { return node().attrs.get_float("out_scale", 1.0f); }
  float out_shift() { return node().attrs.get_float("out_shift", 0.0f); }
  bool is_scaled() { return out_scale() != 1.0f || out_shift() != 0.0f; }

  bool take_next() {
    const ValueId y = node().outputs[0];
    const NodeId next = only_user(graph_, y);
    if (next == kNoNode) return false;
    const Node& user = graph_.node(next);
    if (user.outputs.size() != 1) return false;
    bool taken = false;
    if (const auto affine = affine_of(graph_, user, y, channels_, rank_)) {
      taken = has_activation() || has(kAdded) || is_scaled() ? scale_result(*affine)
                                                             : fold_weights(*affine);
    } else if (user.is("Add")) {
      taken = add_tensor(y, other_input(user, y));
    } else if (const auto activation = is_scaled() ? std::nullopt : activation_of(graph_, user)) {
      taken = !has_activation() && user.inputs[0] == y;
      if (taken) set_activation(*activation);
    }
    if (taken) absorb(next);
    return taken;
  }

  // The result of `next` becomes the result of the convolution.
  void absorb(NodeId next) {
    const ValueId inner = node().outputs[0];
    graph_.move_output(next, 0, conv_, 0);
    graph_.remove_node(next);
    graph_.value(inner).producer = kNoNode;
  }

  void make_fused() {
    if (node().domain == "sprun") return;
    node().domain = "sprun";
    node().version = 1;
    node().def = find_op("sprun", "Conv", 1);
  }

  void set_activation(const Activation& activation) {
    make_fused();
    node().attrs.set("activation", activation.name);
    if (!activation.params.empty()) node().attrs.set("activation_params", activation.params);
  }

  bool scale_result(const Affine& affine) {
    if (!all_equal(affine.factor) || !all_equal(affine.term)) return false;
    make_fused();
    const double scale = static_cast<double>(out_scale()) * affine.factor[0];
    const double shift = static_cast<double>(out_shift()) * affine.factor[0] + affine.term[0];
    node().attrs.set("out_scale", static_cast<float>(scale));
    node().attrs.set("out_shift", static_cast<float>(shift));
    return true;
  }

  bool add_tensor(ValueId y, ValueId z) {
    if (has_activation() || has(kAdded) || is_scaled() || z == kNoValue || graph_.constant(z))
      return false;
    const Value &a = graph_.value(y), &b = graph_.value(z);
    if (!a.shape || !b.shape || *a.shape != *b.shape || b.dtype != DType::kF32) return false;
    make_fused();
    graph_.set_input(conv_, kAdded, z);
    return true;
  }

  bool fold_weights(const Affine& affine) {
    std::vector<double> bias(static_cast<size_t>(channels_), 0.0);
    if (has(kBias)) {
      const auto old = channel_values(graph_, node().input(kBias), channels_, 2);
      if (!old) return false;
      bias = *old;
    }
    auto tensor = Tensor::allocate(DType::kF32, {channels_});
    if (!tensor.ok() || !scale_weights(affine.factor)) return false;
    for (size_t i = 0; i < bias.size(); ++i) {
      tensor->mutable_view().as<float>()[i] =
          static_cast<float>(bias[i] * affine.factor[i] + affine.term[i]);
    }
    const ValueId value =
        graph_.add_constant(graph_.unique_name(node().name + "/fused_bias"), std::move(*tensor));
    graph_.set_input(conv_, kBias, value);
    return true;
  }

  // Replaces W by W * factor per output channel; false if memory for it cannot be had.
  bool scale_weights(const std::vector<double>& factor) {
    if (all_equal(factor) && factor[0] == 1.0) return true;
    auto scaled = Tensor::copy_of(graph_.constant(node().input(kWeight))->view());
    if (!scaled.ok()) return false;
    float* w = scaled->mutable_view().as<float>();
    const int64_t per_channel = scaled->num_elements() / channels_;
    for (int64_t i = 0; i < scaled->num_elements(); ++i) {
      w[i] = static_cast<float>(static_cast<double>(w[i]) *
                                factor[static_cast<size_t>(i / per_channel)]);
    }
    const ValueId value =
        graph_.add_constant(graph_.unique_name(node().name + "/fused_weight"), std::move(*scaled));
    graph_.set_input(conv_, kWeight, value);
    return true;
  }

  Graph& graph_;
  NodeId conv_;
  int64_t channels_ = 0;  // 0: nothing can be fused
  int rank_ = 0;
};

}  // namespace

Result<int> pass_fuse_conv(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  // Last one first: of two convolutions summed, the later one takes the other's result.
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const Node& node = graph.node(*it);
    if (!node.dead && (node.is("Conv") || node.is("sprun", "Conv")))
      fused += ConvFusion(graph, *it).run();
  }
  return fused;
}

}  // namespace sprun::graph
