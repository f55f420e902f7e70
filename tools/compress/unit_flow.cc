#include "tools/compress/unit_flow.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "tools/compress/graph_edit.h"
#include "tools/compress/kv_states.h"
#include "tools/compress/unit_rules.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

// Elements between two neighbours on an axis.
int64_t stride(const Shape& shape, int axis) { return shape.num_elements(axis + 1, shape.rank()); }

std::vector<int64_t> kept_indices(const std::vector<int32_t>& unit, const std::vector<bool>& keep) {
  std::vector<int64_t> kept;
  for (size_t i = 0; i < unit.size(); ++i) {
    if (keep[static_cast<size_t>(unit[i])]) kept.push_back(static_cast<int64_t>(i));
  }
  return kept;
}

Matrix select(const Matrix& w, const std::vector<int64_t>& kept, bool rows) {
  const std::vector<Eigen::Index> at(kept.begin(), kept.end());
  if (rows) return w(at, Eigen::all);
  return w(Eigen::all, at);
}

// The units along axis b of `to`; empty if they depend on more than the index there.
std::vector<int32_t> units_along(const Shape& from, const UnitAxis& units, const Shape& to, int b) {
  const int64_t inner = stride(from, units.axis), length = from[units.axis];
  const int64_t inner_b = stride(to, b), length_b = to[b];
  const int64_t period = std::max(inner * length, inner_b * length_b), step = std::min(inner, inner_b);
  std::vector<int32_t> found(static_cast<size_t>(length_b), -1);
  for (int64_t at = 0; at < period; at += step) {
    const int32_t unit = units.unit[static_cast<size_t>(at / inner % length)];
    int32_t& there = found[static_cast<size_t>(at / inner_b % length_b)];
    if (there != -1 && there != unit) return {};
    there = unit;
  }
  return found;
}

}  // namespace

Result<UnitAxis> map_units(const Shape& from, const UnitAxis& units, const Shape& to) {
  for (int b = 0; b < to.rank() && from.num_elements() > 0; ++b) {
    if (to[b] <= 1) continue;
    auto found = units_along(from, units, to, b);
    if (!found.empty()) return UnitAxis{b, std::move(found)};
  }
  return Status(Code::kBadModel, fmt::format("a reshape from {} to {} mixes units", from.to_string(), to.to_string()));
}

UnitFlow::UnitFlow(const Graph& graph, const ValueShapes& shapes, std::span<const LinearLayer> layers)
    : graph_(graph), shapes_(shapes) {
  for (const LinearLayer& layer : layers) layers_.emplace(layer.node, &layer);
  for (const KvState& state : find_kv_states(graph)) {
    other_side_.emplace(state.past, state.present);
    other_side_.emplace(state.present, state.past);
  }
}

const UnitAxis* UnitFlow::units_of(ValueId v) const {
  const auto it = units_.find(v);
  return it == units_.end() ? nullptr : &it->second;
}

Status UnitFlow::set_units(ValueId v, UnitAxis units) {
  const graph::Value& value = graph_.value(v);
  if (const UnitAxis* known = units_of(v)) {
    if (*known == units) return {};
    return {Code::kBadModel, "'" + value.name + "' would have to shrink in two ways"};
  }
  const Shape* shape = shapes_.of(v);
  if (shape == nullptr || units.axis >= shape->rank() || (*shape)[units.axis] != static_cast<int64_t>(units.unit.size()))
    return {Code::kBadModel, "the shape of '" + value.name + "' is not known"};
  const auto other = other_side_.find(v);
  if ((value.is_input || graph_.is_output(v)) && other == other_side_.end()) {
    return {Code::kBadModel, fmt::format("'{}' is an {} of the model and would change its shape", value.name,
                                         value.is_input ? "input" : "output")};
  }
  const UnitAxis& own = units_.emplace(v, std::move(units)).first->second;
  if (value.producer != kNoNode) pending_.push_back(value.producer);
  pending_.insert(pending_.end(), value.users.begin(), value.users.end());
  return other == other_side_.end() ? Status() : set_units(other->second, own);
}

// A constant has units per use: another node may read it too.
Status UnitFlow::set_input_units(NodeId n, size_t slot, UnitAxis units) {
  const ValueId v = graph_.node(n).input(slot);
  if (graph_.constant(v) == nullptr) return set_units(v, std::move(units));
  const bool known = std::any_of(constants_.begin(), constants_.end(),
                                 [&](const ConstantEdit& e) { return e.node == n && e.slot == slot; });
  if (!known) constants_.push_back({n, slot, std::move(units)});
  return {};
}

Status UnitFlow::spread(ValueId v, UnitAxis units) {
  SPRUN_TRY(set_units(v, std::move(units)));
  while (!pending_.empty()) {
    const NodeId n = pending_.back();
    pending_.pop_back();
    visited_.insert(n);
    const auto layer = layers_.find(n);
    if (layer != layers_.end()) {
      SPRUN_TRY(visit_layer(*layer->second));
      continue;
    }
    SPRUN_ASSIGN(const bool finished, UnitRules(*this, n).apply());
    if (finished) unfinished_.erase(n);
    else unfinished_.insert(n);
  }
  if (unfinished_.empty()) return {};
  const Node& node = graph_.node(*unfinished_.begin());
  return {Code::kBadModel, fmt::format("{} '{}' joins values with units and values without", node.op_type, node.name)};
}

Status UnitFlow::visit_layer(const LinearLayer& layer) {
  const Node& node = graph_.node(layer.node);
  const ValueId y = node.outputs[0];
  for (const bool outputs : {false, true}) {
    const UnitAxis* units = units_of(outputs ? y : layer.x);
    if (units == nullptr) continue;
    const Shape* shape = shapes_.of(outputs ? y : layer.x);
    if (units->axis + 1 != shape->rank()) {  // leading axes stay what they are
      SPRUN_TRY(set_units(outputs ? layer.x : y, *units));
      continue;
    }
    const bool known = std::any_of(cuts_.begin(), cuts_.end(),
                                   [&](const Cut& cut) { return cut.layer == &layer && cut.outputs == outputs; });
    if (known) continue;
    if (!layer.obstacle.empty()) return {Code::kBadModel, "'" + layer.name + "': " + layer.obstacle};
    if (node.is("com.microsoft", "Attention")) return {Code::kBadModel, "'" + layer.name + "' is a fused Attention"};
    const bool has_bias = node.is("Gemm") && node.input(2) != kNoValue;
    if (outputs && has_bias && graph_.constant(node.input(2)) == nullptr) {
      const Shape* bias = shapes_.of(node.input(2));  // a constant behind an Identity, perhaps
      if (bias == nullptr || bias->rank() != 1 || !graph_.has_one_use(node.input(2)))
        return {Code::kBadModel, "'" + layer.name + "' adds something that is not constant"};
      SPRUN_TRY(set_units(node.input(2), {0, units->unit}));
    }
    cuts_.push_back({&layer, outputs, units->unit});
  }
  return {};
}

Status UnitFlow::remove(Graph& graph, const std::vector<bool>& keep) const {
  for (const Cut& cut : cuts_) SPRUN_TRY(remove_from_layer(graph, cut, keep));
  for (const ConstantEdit& edit : constants_) {
    const Tensor& old = *graph.constant(graph.node(edit.node).input(edit.slot));
    SPRUN_ASSIGN(Tensor taken, take(old, edit.units.axis, kept_indices(edit.units.unit, keep)));
    replace_constant_input(graph, edit.node, edit.slot, std::move(taken));
  }
  for (NodeId n : visited_) SPRUN_TRY(remove_from_sizes(graph, n, keep));
  remove_from_declared(graph, keep);
  return {};
}

void UnitFlow::remove_from_declared(Graph& graph, const std::vector<bool>& keep) const {
  for (const auto& [v, other] : other_side_) {
    const UnitAxis* units = units_of(v);
    auto& declared = graph.value(v).declared;
    if (units == nullptr || !declared || units->axis >= static_cast<int>(declared->size())) continue;
    graph::DimInfo& size = (*declared)[static_cast<size_t>(units->axis)];
    if (size.value > 0) size.value = static_cast<int64_t>(kept_indices(units->unit, keep).size());
  }
}

Status UnitFlow::remove_from_layer(Graph& graph, const Cut& cut, const std::vector<bool>& keep) const {
  LinearLayer layer = as_it_is_now(graph, *cut.layer);
  const std::vector<int64_t> kept = kept_indices(cut.unit, keep);
  SPRUN_TRY(write_weight(graph, layer, select(read_weight(graph, layer), kept, cut.outputs)));
  const Node& node = graph.node(layer.node);
  if (!cut.outputs || !node.is("Gemm") || graph.constant(node.input(2)) == nullptr) return {};
  const Tensor& bias = *graph.constant(node.input(2));
  const int last = bias.shape().rank() - 1;
  if (last < 0 || bias.shape()[last] == 1) return {};
  SPRUN_ASSIGN(Tensor taken, take(bias, last, kept));
  replace_constant_input(graph, layer.node, 2, std::move(taken));
  return {};
}

// Target shapes of Reshape and Expand, sizes of Split.
Status UnitFlow::remove_from_sizes(Graph& graph, NodeId n, const std::vector<bool>& keep) const {
  const Node& node = graph.node(n);
  const UnitAxis* units = node.output(0) == kNoValue ? nullptr : units_of(node.output(0));
  if (units == nullptr) return {};
  const auto after = static_cast<int64_t>(kept_indices(units->unit, keep).size());
  if (node.is("Reshape") || node.is("Expand")) {
    const auto before = static_cast<int64_t>(units->unit.size());
    SPRUN_ASSIGN(const ValueId sizes, with_size(graph, shapes_, node.input(1), units->axis, before, after));
    if (sizes != graph.node(n).input(1)) graph.set_input(n, 1, sizes);
    return {};
  }
  const Shape* shape = shapes_.of(node.input(0));
  if (node.is("Slice")) return remove_from_bounds(graph, n, keep);
  if (!node.is("Split") || shape == nullptr) return {};
  const int64_t axis = node.attrs.get_int("axis", 0);
  if ((axis < 0 ? axis + shape->rank() : axis) != units->axis) return {};
  std::vector<int64_t> sizes;
  for (ValueId v : node.outputs) sizes.push_back(static_cast<int64_t>(kept_indices(units_of(v)->unit, keep).size()));
  if (node.version < 13) {
    graph.node(n).attrs.set("split", sizes);
    return {};
  }
  SPRUN_ASSIGN(Tensor list, Tensor::allocate(DType::kS64, Shape{static_cast<int64_t>(sizes.size())}));
  std::copy(sizes.begin(), sizes.end(), static_cast<int64_t*>(list.mutable_view().data));
  graph.node(n).attrs.erase("num_outputs");
  graph.set_input(n, 1, graph.add_constant(graph.unique_name(node.name + "_sizes"), std::move(list)));
  return {};
}

// Where a Slice begins and ends among the units that stay.
Status UnitFlow::remove_from_bounds(Graph& graph, NodeId n, const std::vector<bool>& keep) const {
  const Node& node = graph.node(n);
  const UnitAxis* units = units_of(node.inputs[0]);
  const Shape* shape = shapes_.of(node.inputs[0]);
  const auto range = units && shape ? cut_range(graph, node, *shape, units->axis) : std::nullopt;
  if (!range) return {};
  const std::string name = node.name;
  const int64_t bounds[] = {range->first, range->end};
  for (size_t i = 0; i < 2; ++i) {
    const std::vector<int32_t> before(units->unit.begin(), units->unit.begin() + bounds[i]);
    SPRUN_ASSIGN(Tensor bound, Tensor::allocate(DType::kS64, Shape{1}));
    bound.mutable_view().as<int64_t>()[0] = static_cast<int64_t>(kept_indices(before, keep).size());
    graph.set_input(n, i + 1, graph.add_constant(graph.unique_name(name + (i == 0 ? "_start" : "_end")), std::move(bound)));
  }
  return {};
}

}  // namespace sprun::compress
