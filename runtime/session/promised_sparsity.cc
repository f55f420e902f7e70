#include "runtime/session/promised_sparsity.h"

#include <algorithm>
#include <string_view>

namespace sprun {

namespace {

constexpr std::string_view kKey = "activation_sparsity_pattern";

// The list that belongs to the key: the whole value of its entry, or what follows it inside a configuration.
std::string_view pattern_text(const std::string& key, std::string_view value) {
  if (key.find(kKey) != std::string::npos) return value;
  const size_t at = value.find(kKey);
  if (at == std::string_view::npos) return {};
  value.remove_prefix(at + kKey.size());
  return value.substr(0, value.find_first_of("]}"));
}

bool is_stat_top_k(const graph::Node& node) {
  if (node.dead) return false;
  return node.is("sprun", "StatTopK") ||
         (node.is("sprun", "SparseFfn") && node.attrs.get_string("select", "") == "stat_top_k");
}

}  // namespace

std::string missing_sparsity_note(const std::vector<std::pair<std::string, std::string>>& metadata,
                                  const graph::Graph& graph) {
  const bool promised = std::any_of(metadata.begin(), metadata.end(), [](const auto& entry) {
    return pattern_text(entry.first, entry.second).find_first_of("123456789") != std::string_view::npos;
  });
  if (!promised) return "";
  for (graph::NodeId n = 0; n < graph.num_nodes(); ++n) {
    if (is_stat_top_k(graph.node(n))) return "";
  }
  return "warning: the model's metadata has " + std::string(kKey) +
         ", but the graph has no statistical top-k: the exporter may have left it out, and results differ from the "
         "original model's";
}

}  // namespace sprun
