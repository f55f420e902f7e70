#include "tools/compress/unit_rules.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include <fmt/format.h>

namespace sprun::compress {

using graph::kNoValue;
using graph::Node;
using graph::ValueId;

namespace {

constexpr std::array<std::string_view, 45> kElementwise = {
    "Add",   "Sub",  "Mul",     "Div",        "Pow",       "Min",       "Max",      "Where",     "Equal",
    "Less",  "And",  "Greater", "Relu",       "LeakyRelu", "Elu",       "Selu",     "Gelu",      "Erf",
    "Tanh",  "Exp",  "Sigmoid", "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Neg",       "Abs",
    "Sqrt",  "Cast", "Identity", "Dropout",   "Clip",      "Not",       "Or",       "PRelu",     "Reciprocal",
    "Log",   "Mish", "Celu",    "ThresholdedRelu", "Sign",  "Swish",     "IsNaN",
    "LessOrEqual", "GreaterOrEqual"};
constexpr std::array<std::string_view, 4> kContribElementwise = {"Gelu", "FastGelu", "BiasGelu", "QuickGelu"};
constexpr std::array<std::string_view, 7> kReductions = {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin",
                                                         "ReduceL2",   "ReduceSumSquare", "ReduceL1"};

template <size_t N>
bool is_one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

int64_t from_front(int64_t axis, int rank) { return axis < 0 ? axis + rank : axis; }

constexpr int kBoundsAreInputs = 10;

// The one integer of a constant.
std::optional<int64_t> single(const graph::Graph& graph, ValueId v) {
  for (int depth = 0; depth < 4 && v != kNoValue; ++depth) {
    const Tensor* t = graph.constant(v);
    if (t != nullptr && t->num_elements() == 1 && t->dtype() == DType::kS64) return t->as<int64_t>()[0];
    if (t != nullptr && t->num_elements() == 1 && t->dtype() == DType::kS32) return t->as<int32_t>()[0];
    const Node* node = graph.producer(v);
    v = node != nullptr && node->is("Identity") ? node->inputs[0] : kNoValue;
  }
  return std::nullopt;
}

}  // namespace

std::optional<CutRange> cut_range(const graph::Graph& graph, const Node& slice, const Shape& input, int axis) {
  if (slice.version < kBoundsAreInputs) return std::nullopt;
  const auto first = single(graph, slice.input(1)), end = single(graph, slice.input(2));
  const auto on = slice.input(3) == kNoValue ? std::optional<int64_t>(0) : single(graph, slice.input(3));
  const auto step = slice.input(4) == kNoValue ? std::optional<int64_t>(1) : single(graph, slice.input(4));
  if (!first || !end || !on || step != 1 || from_front(*on, input.rank()) != axis) return std::nullopt;
  const int64_t length = input[axis];
  const auto bound = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + length : at, 0, length); };
  if (bound(*first) >= bound(*end)) return std::nullopt;
  return CutRange{bound(*first), bound(*end)};
}

const Shape* UnitRules::shape(ValueId v) const { return flow_.shapes_.of(v); }

Status UnitRules::refuse(const std::string& why) const {
  const std::string op = node_.domain.empty() ? node_.op_type : node_.domain + "." + node_.op_type;
  return {Code::kBadModel, fmt::format("{} '{}' {}", op, node_.name, why)};
}

Result<bool> UnitRules::apply() {
  for (ValueId v : node_.inputs) {
    if (v != kNoValue && shape(v) == nullptr) return refuse("reads a value whose shape is not known");
  }
  if (node_.domain == "com.microsoft" && is_one_of(kContribElementwise, node_.op_type)) return elementwise();
  if (!node_.domain.empty()) return refuse("handles units in a way that is not understood");
  const std::string_view op = node_.op_type;
  if (op == "Shape" || op == "Size") return true;
  if (is_one_of(kElementwise, op)) return elementwise();
  if (op == "Reshape" || op == "Flatten" || op == "Squeeze" || op == "Unsqueeze") return reshape();
  if (op == "Transpose") return transpose();
  if (op == "MatMul") return matmul();
  if (op == "Expand") return elementwise();
  if (op == "Softmax" || op == "LogSoftmax") return along_axis(node_.attrs.get_int("axis", node_.version < 13 ? 1 : -1));
  if (op == "LayerNormalization" || op == "RMSNormalization") return along_axis(node_.attrs.get_int("axis", -1));
  if (op == "Concat") return along_axis(node_.attrs.get_int("axis", 0));
  if (is_one_of(kReductions, op)) return reduce();
  if (op == "Split") return split();
  if (op == "Slice") return slice();
  if (op == "Gather") return gather();
  return refuse("handles units in a way that is not understood");
}

// Axes count from the last one on. An input of size 1 on the axis is the same for all units.
Result<bool> UnitRules::elementwise() {
  const ValueId y = node_.outputs[0];
  const Shape* out = shape(y);
  if (out == nullptr) return refuse("makes a value whose shape is not known");
  UnitAxis units;
  bool known = false;
  const bool is_expand = node_.is("Expand");
  const size_t inputs = is_expand || node_.is("Cast") || node_.is("Clip") || node_.is("Dropout") ? 1 : node_.inputs.size();
  if (const UnitAxis* own = flow_.units_of(y)) units = *own, known = true;
  for (size_t i = 0; i < inputs && !known; ++i) {
    const UnitAxis* given = node_.input(i) == kNoValue ? nullptr : flow_.units_of(node_.input(i));
    if (given == nullptr) continue;
    units = {given->axis + out->rank() - shape(node_.input(i))->rank(), given->unit};
    known = true;
  }
  if (!known) return true;
  SPRUN_TRY(flow_.set_units(y, units));
  for (size_t i = 0; i < inputs; ++i) {
    if (node_.input(i) == kNoValue) continue;
    const int axis = units.axis - (out->rank() - shape(node_.input(i))->rank());
    if (axis < 0 || (*shape(node_.input(i)))[axis] == 1) continue;
    SPRUN_TRY(flow_.set_input_units(id_, i, {axis, units.unit}));
  }
  return true;
}

Result<bool> UnitRules::reshape() {
  const ValueId x = node_.inputs[0], y = node_.outputs[0];
  if (shape(y) == nullptr) return refuse("makes a value whose shape is not known");
  if (const UnitAxis* units = flow_.units_of(x)) {
    SPRUN_ASSIGN(UnitAxis mapped, map_units(*shape(x), *units, *shape(y)));
    SPRUN_TRY(flow_.set_units(y, std::move(mapped)));
  } else if (const UnitAxis* made = flow_.units_of(y)) {
    SPRUN_ASSIGN(UnitAxis mapped, map_units(*shape(y), *made, *shape(x)));
    SPRUN_TRY(flow_.set_input_units(id_, 0, std::move(mapped)));
  }
  return true;
}

Result<bool> UnitRules::transpose() {
  const int rank = shape(node_.inputs[0])->rank();
  std::vector<int64_t> perm = node_.attrs.get_ints("perm");
  if (perm.empty()) {
    for (int i = rank - 1; i >= 0; --i) perm.push_back(i);
  }
  if (const UnitAxis* units = flow_.units_of(node_.inputs[0])) {
    const auto at = std::find(perm.begin(), perm.end(), units->axis) - perm.begin();
    SPRUN_TRY(flow_.set_units(node_.outputs[0], {static_cast<int>(at), units->unit}));
  } else if (const UnitAxis* made = flow_.units_of(node_.outputs[0])) {
    SPRUN_TRY(flow_.set_input_units(id_, 0, {static_cast<int>(perm[static_cast<size_t>(made->axis)]), made->unit}));
  }
  return true;
}

// Nodes that join, cut or norm one axis: all other axes of all activations agree.
Result<bool> UnitRules::along_axis(int64_t axis) {
  const bool joins = node_.is("Concat");
  const bool flattens = !joins && (node_.version < 13 || !node_.is("Softmax"));  // works on this axis and all behind it
  const size_t inputs = joins ? node_.inputs.size() : 1;
  const UnitAxis* units = flow_.units_of(node_.outputs[0]);
  for (size_t i = 0; i < inputs && units == nullptr; ++i) units = flow_.units_of(node_.inputs[i]);
  if (units == nullptr) return true;
  const UnitAxis all = *units;
  const int64_t at = from_front(axis, shape(node_.inputs[0])->rank());
  if (all.axis == at || (flattens && all.axis > at)) return refuse("works across units");
  SPRUN_TRY(flow_.set_units(node_.outputs[0], all));
  for (size_t i = 0; i < inputs; ++i) SPRUN_TRY(flow_.set_input_units(id_, i, all));
  return true;
}

std::vector<int64_t> UnitRules::int_list(const char* attribute, size_t slot) const {
  const Tensor* list = flow_.graph_.constant(node_.input(slot));
  if (list == nullptr) return node_.attrs.get_ints(attribute);
  std::vector<int64_t> values;
  for (int64_t i = 0; i < list->num_elements() && list->dtype() == DType::kS64; ++i) values.push_back(list->as<int64_t>()[i]);
  return values;
}

Result<bool> UnitRules::reduce() {
  const UnitAxis* units = flow_.units_of(node_.inputs[0]);
  if (units == nullptr) units = flow_.units_of(node_.outputs[0]);
  if (units == nullptr) return true;
  if (node_.attrs.get_int("keepdims", 1) == 0) return refuse("reduces values with units");
  const UnitAxis all = *units;
  const std::vector<int64_t> axes = int_list("axes", 1);
  const int rank = shape(node_.inputs[0])->rank();
  const bool across = axes.empty() || std::any_of(axes.begin(), axes.end(), [&](int64_t axis) {
    return from_front(axis, rank) == all.axis;
  });
  if (across) return refuse("works across units");
  SPRUN_TRY(flow_.set_input_units(id_, 0, all));
  SPRUN_TRY(flow_.set_units(node_.outputs[0], all));
  return true;
}

Result<bool> UnitRules::split() {
  const ValueId x = node_.inputs[0];
  const int rank = shape(x)->rank();
  const int64_t axis = from_front(node_.attrs.get_int("axis", 0), rank);
  const UnitAxis* units = flow_.units_of(x);
  if (units != nullptr) {
    const UnitAxis all = *units;
    size_t first = 0;
    for (ValueId y : node_.outputs) {
      UnitAxis part = all;
      if (all.axis == axis) {
        const auto length = static_cast<size_t>((*shape(y))[all.axis]);
        part.unit.assign(all.unit.begin() + static_cast<ptrdiff_t>(first),
                         all.unit.begin() + static_cast<ptrdiff_t>(first + length));
        first += length;
      }
      SPRUN_TRY(flow_.set_units(y, std::move(part)));
    }
    return true;
  }
  UnitAxis joined;
  for (ValueId y : node_.outputs) {
    const UnitAxis* part = flow_.units_of(y);
    if (part == nullptr) return false;
    joined.axis = part->axis;
    if (part->axis == axis) joined.unit.insert(joined.unit.end(), part->unit.begin(), part->unit.end());
    else joined.unit = part->unit;
  }
  SPRUN_TRY(flow_.set_input_units(id_, 0, std::move(joined)));
  return true;
}

Result<bool> UnitRules::slice() {
  const UnitAxis* units = flow_.units_of(node_.inputs[0]);
  const bool given = units != nullptr;
  if (!given) units = flow_.units_of(node_.outputs[0]);
  if (units == nullptr) return true;
  const UnitAxis all = *units;
  const int rank = shape(node_.inputs[0])->rank();
  std::vector<int64_t> axes = int_list("axes", 3);
  if (axes.empty()) {
    if (node_.input(3) != kNoValue) return refuse("cuts axes that are not constant");
    const size_t count = node_.version < 10 ? node_.attrs.get_ints("starts").size()
                                            : static_cast<size_t>(shape(node_.input(1))->num_elements());
    for (size_t i = 0; i < count; ++i) axes.push_back(static_cast<int64_t>(i));
  }
  for (int64_t axis : axes) {
    if (from_front(axis, rank) == all.axis) return cut_units(all.axis);
  }
  SPRUN_TRY(flow_.set_input_units(id_, 0, all));
  SPRUN_TRY(flow_.set_units(node_.outputs[0], all));
  return true;
}

// Query, key and value of one matrix: pieces that lie side by side and cover all of it.
Result<bool> UnitRules::cut_units(int axis) {
  const ValueId x = node_.inputs[0];
  const Shape& whole = *shape(x);
  const auto own = cut_range(flow_.graph_, node_, whole, axis);
  if (!own) return refuse("cuts across units");
  if (const UnitAxis* units = flow_.units_of(x)) {
    UnitAxis part{axis, {units->unit.begin() + own->first, units->unit.begin() + own->end}};
    SPRUN_TRY(flow_.set_units(node_.outputs[0], std::move(part)));
    return true;
  }
  UnitAxis joined{axis, std::vector<int32_t>(static_cast<size_t>(whole[axis]), -1)};
  for (graph::NodeId n : flow_.graph_.value(x).users) {
    const Node& piece = flow_.graph_.node(n);
    if (piece.is("Shape")) continue;
    const auto range = piece.is("Slice") ? cut_range(flow_.graph_, piece, whole, axis) : std::nullopt;
    if (!range) return refuse("cuts across units");
    const UnitAxis* units = flow_.units_of(piece.outputs[0]);
    if (units == nullptr) return false;
    std::copy(units->unit.begin(), units->unit.end(), joined.unit.begin() + range->first);
  }
  if (std::find(joined.unit.begin(), joined.unit.end(), -1) != joined.unit.end()) return refuse("cuts across units");
  SPRUN_TRY(flow_.set_input_units(id_, 0, std::move(joined)));
  return true;
}

// Picks from another axis than that of the units: "qkv[0]".
Result<bool> UnitRules::gather() {
  const int rank = shape(node_.inputs[0])->rank(), index_rank = shape(node_.inputs[1])->rank();
  const int64_t axis = from_front(node_.attrs.get_int("axis", 0), rank);
  if (flow_.units_of(node_.inputs[1]) != nullptr) return refuse("uses units as indices");
  if (const UnitAxis* units = flow_.units_of(node_.inputs[0])) {
    if (units->axis == axis) return refuse("picks units");
    const int there = units->axis > axis ? units->axis + index_rank - 1 : units->axis;
    SPRUN_TRY(flow_.set_units(node_.outputs[0], {there, units->unit}));
  } else if (const UnitAxis* made = flow_.units_of(node_.outputs[0])) {
    if (made->axis >= axis && made->axis < axis + index_rank) return refuse("picks units");
    const int there = made->axis >= axis ? made->axis - index_rank + 1 : made->axis;
    SPRUN_TRY(flow_.set_input_units(id_, 0, {there, made->unit}));
  }
  return true;
}

// Of two activations, or of one with a constant that has leading axes: units on leading axes only.
Result<bool> UnitRules::matmul() {
  const Shape* out = shape(node_.outputs[0]);
  if (out == nullptr) return refuse("makes a value whose shape is not known");
  const std::array<ValueId, 3> values = {node_.outputs[0], node_.inputs[0], node_.inputs[1]};
  UnitAxis units;
  bool known = false;
  for (ValueId v : values) {
    const UnitAxis* given = flow_.units_of(v);
    if (given == nullptr || known) continue;
    units = {given->axis + out->rank() - shape(v)->rank(), given->unit};
    known = true;
  }
  if (!known) return true;
  if (units.axis >= out->rank() - 2) return refuse("sums over units or lists them");
  SPRUN_TRY(flow_.set_units(node_.outputs[0], units));
  for (size_t i = 0; i < 2; ++i) {
    const int axis = units.axis - (out->rank() - shape(node_.inputs[i])->rank());
    if (axis < 0 || (*shape(node_.inputs[i]))[axis] == 1) continue;
    SPRUN_TRY(flow_.set_input_units(id_, i, {axis, units.unit}));
  }
  return true;
}

}  // namespace sprun::compress
