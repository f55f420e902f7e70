#include "runtime/generate/same_plan.h"

#include <cstring>

namespace sprun {

using graph::Node;
using graph::ValueId;

namespace {

bool same_attrs(const Node& a, const Node& b) {
  const auto &x = a.attrs.items(), &y = b.attrs.items();
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i].first != y[i].first) return false;
    if (x[i].first == "left_window" && a.attrs.get_int("left_window", -1) < 0) continue;
    if (graph::to_string(x[i].second) != graph::to_string(y[i].second)) return false;
  }
  return true;
}

// The same constant, or values of the same type and shape.
bool same_value(const Plan& a, ValueId u, const Plan& b, ValueId v) {
  if (u == graph::kNoValue || v == graph::kNoValue) return u == v;
  const ConstTensorView x = a.type_of(u), y = b.type_of(v);
  if (x.dtype != y.dtype || !(x.shape == y.shape) || (x.data == nullptr) != (y.data == nullptr)) return false;
  if (x.data == nullptr || x.data == y.data) return true;
  return std::memcmp(x.data, y.data, static_cast<size_t>(x.size_bytes())) == 0;
}

}  // namespace

std::string difference(const Plan& near, const Plan& far) {
  if (near.steps().size() != far.steps().size()) return "the number of steps depends on the position";
  for (size_t s = 0; s < near.steps().size(); ++s) {
    const Node& a = near.graph().node(near.steps()[s].node);
    const Node& b = far.graph().node(far.steps()[s].node);
    const auto name = [&] { return b.op_type + " '" + b.name + "'"; };
    if (far.steps()[s].dynamic) return name() + " has a shape that is known only when running";
    if (a.op_type != b.op_type || a.domain != b.domain || !same_attrs(a, b) || a.inputs.size() != b.inputs.size() ||
        a.outputs.size() != b.outputs.size()) {
      return name() + " depends on the position";
    }
    for (size_t i = 0; i < a.inputs.size(); ++i) {
      if (!same_value(near, a.inputs[i], far, b.inputs[i])) return name() + " reads a value that depends on the position";
    }
    for (size_t i = 0; i < a.outputs.size(); ++i) {
      if (!same_value(near, a.outputs[i], far, b.outputs[i])) return name() + " has a size that depends on the position";
    }
  }
  return "";
}

}  // namespace sprun
