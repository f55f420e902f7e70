#include "tools/compress/prune.h"

#include <array>

namespace sprun::compress {
namespace {

constexpr std::array kMethods = {
#define SPRUN_PRUNE_METHOD(needs, name) \
  PruneMethod{#name, PruneMethod::Needs::needs, &prune_##name},
#include "tools/compress/prune_methods.def"
#undef SPRUN_PRUNE_METHOD
};

}  // namespace

const PruneMethod* find_prune_method(std::string_view name) {
  for (const PruneMethod& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

std::string prune_method_names() {
  std::string names;
  for (const PruneMethod& method : kMethods) {
    if (!names.empty()) names += ", ";
    names += method.name;
  }
  return names;
}

}  // namespace sprun::compress
