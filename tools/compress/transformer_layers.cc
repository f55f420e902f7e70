#include "tools/compress/transformer_layers.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "tools/compress/unit_sites.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

constexpr size_t kMaxNormNodes = 16;

// The sum that puts the output of a branch back on the residual stream.
struct ResidualSum {
  ValueId before = kNoValue, sum = kNoValue;
  const LinearLayer* reader = nullptr;  // the last layer of the branch
};

std::optional<ResidualSum> residual_sum(const Graph& graph, const LinearLayer& reader) {
  ValueId v = graph.node(reader.node).outputs[0];
  for (int depth = 0; depth < 6; ++depth) {
    const auto& users = graph.value(v).users;
    const auto user = std::find_if(users.begin(), users.end(), [&](NodeId n) { return !graph.node(n).is("Shape"); });
    if (user == users.end()) return std::nullopt;
    const Node& node = graph.node(*user);
    if (node.is("Add") && graph.constant(node.inputs[0]) == nullptr && graph.constant(node.inputs[1]) == nullptr) {
      return ResidualSum{node.inputs[node.inputs[0] == v ? 1 : 0], node.outputs[0], &reader};
    }
    constexpr std::array kKeep = {"Add", "Reshape", "Cast", "Identity"};
    if (std::none_of(kKeep.begin(), kKeep.end(), [&](const char* op) { return node.is(op); })) return std::nullopt;
    v = node.outputs[0];
  }
  return std::nullopt;
}

// Kinds of the nodes from v back to `start`, through first inputs; nothing if `start` is not there.
std::optional<std::vector<std::string>> path_back(const Graph& graph, ValueId v, ValueId start) {
  std::vector<std::string> ops;
  while (v != start) {
    const Node* node = graph.producer(v);
    if (node == nullptr || ops.size() == kMaxNormNodes) return std::nullopt;
    ops.push_back(node->op_type);
    const auto next = std::find_if(node->inputs.begin(), node->inputs.end(), [&](ValueId i) {
      return i != kNoValue && graph.constant(i) == nullptr;
    });
    if (next == node->inputs.end()) return std::nullopt;
    v = *next;
  }
  return ops;
}

// What follows `sum` as `ops` say: the norm behind the last sum. `sum` itself if there is none between the others.
ValueId follow(const Graph& graph, ValueId sum, const std::vector<std::string>& ops) {
  if (ops.empty()) return sum;
  for (NodeId n = 0; n < graph.num_nodes(); ++n) {
    const Node& node = graph.node(n);
    if (node.dead || node.op_type != ops.front() || node.output(0) == kNoValue) continue;
    if (path_back(graph, node.outputs[0], sum) == ops) return node.outputs[0];
  }
  return kNoValue;
}

std::set<NodeId> nodes_after(const Graph& graph, ValueId start) {
  std::set<NodeId> found;
  std::vector<ValueId> pending{start};
  while (!pending.empty()) {
    const ValueId v = pending.back();
    pending.pop_back();
    for (NodeId n : graph.value(v).users) {
      if (!found.insert(n).second) continue;
      for (ValueId output : graph.node(n).outputs) {
        if (output != kNoValue) pending.push_back(output);
      }
    }
  }
  return found;
}

void fill_nodes(const Graph& graph, std::span<const LinearLayer> layers, TransformerLayer& layer) {
  const std::set<NodeId> inside = nodes_after(graph, layer.in), behind = nodes_after(graph, layer.out);
  for (NodeId n : inside) {
    if (!behind.contains(n)) layer.nodes.insert(n);
  }
  for (const KvState& state : find_kv_states(graph)) {
    if (layer.nodes.contains(graph.value(state.present).producer)) layer.states.push_back(state);
  }
  const auto is_state = [&](ValueId v) {
    return std::any_of(layer.states.begin(), layer.states.end(), [&](const KvState& s) { return s.present == v; });
  };
  for (NodeId n : layer.nodes) {
    for (ValueId v : graph.node(n).outputs)
      layer.makes_outputs |= v != kNoValue && v != layer.out && graph.is_output(v) && !is_state(v);
  }
  for (const LinearLayer& l : layers) {
    if (layer.nodes.contains(l.node)) layer.linear.push_back(&l);
  }
}

Status refuse(const std::string& why) { return {Code::kBadModel, "the layers of the model are not clear: " + why}; }

// Attention, network, attention, network, ..
Result<std::vector<ResidualSum>> find_sums(const Graph& graph, const ValueShapes& shapes,
                                           std::span<const LinearLayer> layers) {
  const UnitSites networks = find_units(UnitKind::kFfn, graph, shapes, layers);
  std::vector<ResidualSum> sums;
  for (const LinearLayer& layer : layers) {
    const bool is_network = std::any_of(networks.sites.begin(), networks.sites.end(),
                                        [&](const UnitSite& site) { return site.reader == &layer; });
    if (!is_network && !is_attention_output(graph, shapes, layer)) continue;
    if (is_network != (sums.size() % 2 == 1)) return refuse("'" + layer.name + "' is not expected where it is");
    const auto sum = residual_sum(graph, layer);
    if (!sum) return refuse("the output of '" + layer.name + "' is not added to a residual");
    sums.push_back(*sum);
  }
  if (sums.empty() || sums.size() % 2 != 0) return refuse("no pairs of attention and feed-forward network");
  return sums;
}

}  // namespace

Result<std::vector<TransformerLayer>> find_transformer_layers(const Graph& graph, const ValueShapes& shapes,
                                                              std::span<const LinearLayer> layers) {
  SPRUN_ASSIGN(const std::vector<ResidualSum> sums, find_sums(graph, shapes, layers));
  std::vector<std::string> norm;  // between a sum and the next
  for (size_t i = 0; i + 1 < sums.size(); ++i) {
    const auto path = path_back(graph, sums[i + 1].before, sums[i].sum);
    if (!path || (i > 0 && *path != norm)) return refuse("'" + sums[i + 1].reader->name + "' does not continue the residual");
    norm = *path;
  }
  std::vector<TransformerLayer> found;
  for (size_t i = 0; i < sums.size(); i += 2) {
    TransformerLayer layer;
    layer.in = sums[i].before;
    layer.out = i + 2 < sums.size() ? sums[i + 2].before : follow(graph, sums[i + 1].sum, norm);
    const Shape* in = shapes.of(layer.in);
    const Shape* out = shapes.of(layer.out);
    if (in == nullptr || out == nullptr || *in != *out) return refuse("'" + sums[i].reader->name + "' changes the shape of the residual");
    found.push_back(std::move(layer));
  }
  for (TransformerLayer& layer : found) fill_nodes(graph, layers, layer);
  return found;
}

}  // namespace sprun::compress
