#include <map>
#include <string>
#include <utility>

#include "graph/ops/op.h"

namespace sprun::graph {

#define SPRUN_OP_GROUP(name) extern const std::span<const OpDef> k_##name##_ops;
#include "graph/ops/op_groups.def"
#undef SPRUN_OP_GROUP

std::span<const std::span<const OpDef>> op_groups() {
  static const std::span<const OpDef> groups[] = {
#define SPRUN_OP_GROUP(name) k_##name##_ops,
#include "graph/ops/op_groups.def"
#undef SPRUN_OP_GROUP
  };
  return groups;
}

namespace {
using OpIndex = std::multimap<std::pair<std::string_view, std::string_view>, const OpDef*>;

const OpIndex& op_index() {
  static const OpIndex index = [] {
    OpIndex built;
    for (std::span<const OpDef> group : op_groups()) {
      for (const OpDef& def : group) built.emplace(std::pair(def.domain, def.name), &def);
    }
    return built;
  }();
  return index;
}

std::string_view canonical_domain(std::string_view domain) { return domain == "ai.onnx" ? "" : domain; }
}  // namespace

const OpDef* find_op(std::string_view domain, std::string_view name, int version) {
  const auto [begin, end] = op_index().equal_range({canonical_domain(domain), name});
  for (auto it = begin; it != end; ++it) {
    if (it->second->since <= version && version <= it->second->until) return it->second;
  }
  return nullptr;
}

bool op_known(std::string_view domain, std::string_view name) {
  return op_index().contains({canonical_domain(domain), name});
}

Status InferContext::error(const std::string& text) const {
  return {Code::kBadModel, node_.op_type + " '" + node_.name + "': " + text};
}

Status RunContext::error(const std::string& text) const {
  return {Code::kBadInput, node_->op_type + " '" + node_->name + "': " + text};
}

Result<TensorView> RunContext::alloc_output(int i, DType dtype, const Shape& shape) {
  if (!alloc_) return Status(Code::kInternal, node_->op_type + ": no allocator for a dynamic output");
  return alloc_(i, dtype, shape);
}

}  // namespace sprun::graph
