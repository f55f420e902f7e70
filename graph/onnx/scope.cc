#include "graph/onnx/scope.h"

namespace sprun::graph {

std::string GraphState::fresh_name(const std::string& base) {
  std::string name = base;
  for (int i = 1; !taken.insert(name).second; ++i) name = base + "_" + std::to_string(i);
  return name;
}

bool Scope::lookup(const std::string& name, ValueId* value) {
  *value = kNoValue;
  if (name.empty()) return true;
  if (auto it = names.find(name); it != names.end()) {
    *value = it->second;
    return true;
  }
  if (outer == nullptr || !outer->lookup(name, value)) return false;
  if (*value != kNoValue) *value = capture(name, *value);
  names.emplace(name, *value);
  return true;
}

ValueId Scope::capture(const std::string& name, ValueId from) {
  const Value& source = outer->graph().value(from);
  if (source.is_constant()) return graph().add_constant(state->fresh_name(name), source.constant);
  const DType dtype = source.dtype;
  const ValueId inner = graph().add_value(state->fresh_name(name));
  graph().value(inner).dtype = dtype;
  captures.push_back({from, inner});
  return inner;
}

bool Scope::declare(const std::string& name, ValueId* value) {
  const auto [it, inserted] = names.try_emplace(name, kNoValue);
  if (!inserted) return false;
  if (preset != nullptr) {
    if (auto found = preset->find(name); found != preset->end()) {
      *value = it->second = found->second;
      return true;
    }
  }
  *value = it->second = graph().add_value(state->fresh_name(prefix + name));
  return true;
}

}  // namespace sprun::graph
