#include "graph/passes/select_match.h"

#include <algorithm>
#include <utility>

#include "graph/ir/pattern.h"
#include "graph/passes/linear_layout.h"

namespace sprun::graph {
namespace {

constexpr int kMaxDepth = 16;

// Is v a floating-point value, as far as can be told before types are known?
bool is_floating(const Graph& graph, ValueId v) {
  const DType dtype = graph.value(v).dtype;
  if (dtype != DType::kUndefined) return is_float(dtype);
  const Node* node = graph.producer(v);
  if (node == nullptr) return false;
  constexpr std::string_view kFloatOps[] = {"Add",  "Sub",  "Mul",        "Div",        "MatMul",    "Gemm",
                                            "Relu", "Gelu", "ReduceMean", "Sqrt",       "Linear",    "LinearInt8", "LinearDequant",
                                            "Pow",  "Tanh", "StatTopK",   "TopKSelect", "Threshold", "MatMulNBits",
                                            "Max",  "Clip", "QuickGelu",  "FastGelu"};
  return std::find(std::begin(kFloatOps), std::end(kFloatOps), node->op_type) != std::end(kFloatOps);
}

// Does a constant keep the shape of v when both meet in one node with result `out`?
bool keeps_shape(const Graph& graph, ValueId constant, ValueId v, ValueId out) {
  if (graph.constant(constant)->shape().rank() <= 1) return true;
  const auto &from = graph.value(v).shape, &to = graph.value(out).shape;
  return from && to && *from == *to;
}

}  // namespace

ValueId skip_casts(const Graph& graph, ValueId v) {
  for (int depth = 0; depth < kMaxDepth; ++depth) {
    const Node* cast = producer_is(graph, v, "Cast");
    const int64_t to = cast ? cast->attrs.get_int("to", 0) : 0;
    const bool to_float = to == 1 || to == 10 || to == 16;
    if (!to_float || !is_floating(graph, cast->inputs[0])) return v;
    v = cast->inputs[0];
  }
  return v;
}

bool is_zero(const Graph& graph, ValueId v) {
  if (const Node* fill = producer_is(graph, v, "ConstantOfShape")) {
    const Tensor* value = fill->attrs.get_tensor("value");
    if (value == nullptr) return true;
    const auto* bytes = static_cast<const char*>(value->data());
    return std::all_of(bytes, bytes + value->size_bytes(), [](char b) { return b == 0; });
  }
  const Tensor* tensor = graph.constant(v);
  if (tensor == nullptr || !is_float(tensor->dtype())) return false;
  const auto* bytes = static_cast<const char*>(tensor->data());
  return std::all_of(bytes, bytes + tensor->size_bytes(), [](char b) { return b == 0; });
}

int64_t last_size(const Graph& graph, ValueId v) {
  for (int depth = 0; depth < kMaxDepth && v != kNoValue; ++depth) {
    v = skip_casts(graph, v);
    if (const auto& shape = graph.value(v).shape) return shape->rank() > 0 ? shape->back() : -1;
    const Node* node = graph.producer(v);
    if (node == nullptr || node->inputs.empty()) return -1;
    if (is_linear(*node) && node->outputs.size() == 1) return linear_width(graph, *node, 0);
    if (node->is("com.microsoft", "MatMulNBits")) return node->attrs.get_int("N", -1);
    if (node->is("MatMul") && graph.constant(node->inputs[1])) return graph.constant(node->inputs[1])->shape().back();
    const bool row = node->is("Add") && graph.constant(node->inputs[1]);
    v = node->is("Add") && !row && graph.constant(node->inputs[0]) ? node->inputs[1] : node->inputs[0];
    if (!node->is("Add") && !node->is("Relu") && !node->is("com.microsoft", "QuickGelu")) return -1;
  }
  return -1;
}

ValueId relu_input(const Graph& graph, ValueId v) {
  const Node* node = graph.producer(v);
  if (node == nullptr) return kNoValue;
  if (node->is("Relu")) return node->inputs[0];
  ValueId other = kNoValue;
  const auto zero = [&graph](ValueId i) { return scalar_constant(graph, i) == 0.0; };
  if (node->is("Max") && pick_input(*node, zero, &other) != kNoValue) return other;
  if (!node->is("Clip")) return kNoValue;
  const bool by_input = node->version >= 11;
  const auto low = by_input ? scalar_constant(graph, node->input(1))
                            : std::optional<double>(node->attrs.get_float("min", -1));
  const auto high = by_input ? scalar_constant(graph, node->input(2)) : std::optional<double>();
  const bool open = by_input ? node->input(2) == kNoValue || (high && *high >= 3e38)
                             : node->attrs.get_float("max", 3.4e38F) >= 3e38F;
  return low == 0.0 && open ? node->inputs[0] : kNoValue;
}

std::optional<Comparison> comparison_of(const Graph& graph, ValueId v, bool constant) {
  if (const Node* negation = producer_is(graph, v, "Not")) {
    auto inner = comparison_of(graph, negation->inputs[0], constant);
    if (!inner) return std::nullopt;
    inner->below = !inner->below;
    inner->inclusive = !inner->inclusive;
    return inner;
  }
  const Node* node = graph.producer(v);
  if (node == nullptr || !node->domain.empty() || node->inputs.size() != 2) return std::nullopt;
  const bool greater = node->op_type == "Greater" || node->op_type == "GreaterOrEqual";
  if (!greater && node->op_type != "Less" && node->op_type != "LessOrEqual") return std::nullopt;
  Comparison found = {node->inputs[0], node->inputs[1], node->op_type.ends_with("OrEqual"), !greater};
  if (constant && graph.constant(found.x)) {
    std::swap(found.x, found.t);
    found.below = !found.below;
  }
  if (constant && (!graph.constant(found.t) || graph.constant(found.x))) return std::nullopt;
  return found;
}

std::optional<Kept> kept_values(const Graph& graph, ValueId v, bool constant) {
  const Node* node = graph.producer(v);
  if (node == nullptr || !(node->is("Where") || node->is("Mul"))) return std::nullopt;
  Kept kept;
  ValueId condition = kNoValue, zero = kNoValue;
  bool keeps_when_true = true;
  if (node->is("Where")) {
    condition = node->inputs[0];
    keeps_when_true = is_zero(graph, node->inputs[2]);
    zero = node->inputs[keeps_when_true ? 2 : 1];
    kept.y = node->inputs[keeps_when_true ? 1 : 2];
    if (!is_zero(graph, zero)) return std::nullopt;
    if (graph.constant(zero) && !keeps_shape(graph, zero, kept.y, v)) return std::nullopt;
  } else {
    const auto is_mask = [&](ValueId i) {
      const Node* cast = producer_is(graph, i, "Cast");
      return cast && comparison_of(graph, cast->inputs[0], constant).has_value();
    };
    const ValueId mask = pick_input(*node, is_mask, &kept.y);
    if (mask == kNoValue) return std::nullopt;
    condition = graph.producer(mask)->inputs[0];
  }
  const auto found = comparison_of(graph, condition, constant);
  if (!found) return std::nullopt;
  kept.when = *found;
  if (!keeps_when_true) {
    kept.when.below = !kept.when.below;
    kept.when.inclusive = !kept.when.inclusive;
  }
  if (kept.when.below && !constant) {  // both sides are values: turn them round
    std::swap(kept.when.x, kept.when.t);
    kept.when.below = false;
  }
  if (kept.when.below) return std::nullopt;
  if (constant && !keeps_shape(graph, kept.when.t, kept.y, v)) return std::nullopt;
  return kept;
}

void note_miss(PassContext& ctx, const Node& node, const std::string& pass, const std::string& why) {
  if (ctx.stage == PassStage::kPlan) ctx.note(pass + ": '" + node.name + "' " + why);
}

}  // namespace sprun::graph
