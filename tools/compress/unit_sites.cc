#include "tools/compress/unit_sites.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>

namespace sprun::compress {

using graph::Graph;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::ValueId;

namespace {

constexpr std::array<std::string_view, 14> kActivations = {
    "Relu", "Gelu", "FastGelu", "BiasGelu",  "QuickGelu", "Erf",  "Tanh",
    "Elu",  "Selu", "Sigmoid",  "HardSwish", "Softplus",  "Mish", "LeakyRelu"};

bool has_node(const Graph& graph, const UnitFlow& flow, std::span<const std::string_view> ops) {
  return std::any_of(flow.nodes().begin(), flow.nodes().end(), [&](NodeId n) {
    return std::find(ops.begin(), ops.end(), graph.node(n).op_type) != ops.end();
  });
}

// Units 0, 0, .., 1, 1, ..: `width` inputs each.
std::vector<int32_t> runs(int64_t inputs, int64_t width) {
  std::vector<int32_t> unit;
  for (int64_t i = 0; i < inputs; ++i) unit.push_back(static_cast<int32_t>(i / width));
  return unit;
}

// The product of attention weights and values that x is, reordered; its rows are one head wide.
std::optional<int64_t> head_size(const Graph& graph, const ValueShapes& shapes, ValueId x) {
  for (int depth = 0; depth < 8; ++depth) {
    const Node* node = graph.producer(x);
    if (node == nullptr) return std::nullopt;
    if (node->is("MatMul")) {
      const Shape* shape = shapes.of(x);
      const bool activations = graph.constant(node->inputs[0]) == nullptr && graph.constant(node->inputs[1]) == nullptr;
      if (!activations || shape == nullptr || shape->rank() < 3 || shape->back() <= 0) return std::nullopt;
      return shape->back();
    }
    if (!(node->is("Reshape") || node->is("Transpose") || node->is("Cast") || node->is("Identity"))) return std::nullopt;
    x = node->inputs[0];
  }
  return std::nullopt;
}

class Search {
 public:
  Search(UnitKind kind, const Graph& graph, const ValueShapes& shapes, std::span<const LinearLayer> layers)
      : kind_(kind), graph_(graph), shapes_(shapes), layers_(layers) {}

  UnitSites run() {
    for (const LinearLayer& layer : layers_) {
      if (layer.is_head || shapes_.of(layer.x) == nullptr) continue;
      if (kind_ == UnitKind::kFfn) try_ffn(layer);
      else try_heads(layer);
    }
    return std::move(found_);
  }

 private:
  // A site whose units are runs of `width` inputs of the reader; the reason if there is none.
  Status make_site(const LinearLayer& reader, int64_t width, UnitSite& site) const {
    site.reader = &reader;
    site.unit = runs(reader.k, width);
    site.units = reader.k / width;
    site.flow = std::make_unique<UnitFlow>(graph_, shapes_, layers_);
    SPRUN_TRY(site.flow->spread(reader.x, {shapes_.of(reader.x)->rank() - 1, site.unit}));
    int readers = 0, makers = 0;
    for (const UnitFlow::Cut& cut : site.flow->cuts()) ++(cut.outputs ? makers : readers);
    if (readers != 1) return {Code::kBadModel, std::to_string(readers) + " layers read the units"};
    if (makers == 0) return {Code::kBadModel, "no layer makes the units"};
    return {};
  }

  void try_ffn(const LinearLayer& layer) {
    const LinearLayer* up = layer_behind(layer.x);
    if (up == nullptr || up->k != layer.n || layer.k < 2) return;
    UnitSite site;
    const Status status = make_site(layer, 1, site);
    if (!status.ok()) {
      found_.refused.push_back(layer.name + ": " + status.message());
      return;
    }
    const bool returns = std::all_of(site.flow->cuts().begin(), site.flow->cuts().end(), [&](const UnitFlow::Cut& cut) {
      return !cut.outputs || cut.layer->k == layer.n;
    });
    if (!returns || !has_node(graph_, *site.flow, kActivations)) return;
    site.unit_name = "neurons";
    found_.sites.push_back(std::move(site));
  }

  // The linear layer that x comes from through nodes that keep its elements apart.
  const LinearLayer* layer_behind(ValueId x) const {
    for (int depth = 0; depth < 24; ++depth) {
      const Node* node = graph_.producer(x);
      if (node == nullptr) return nullptr;
      const auto layer = std::find_if(layers_.begin(), layers_.end(),
                                      [&](const LinearLayer& l) { return &graph_.node(l.node) == node; });
      if (layer != layers_.end()) return &*layer;
      if (node->is("LayerNormalization") || node->is("Softmax") || node->is("Transpose")) return nullptr;
      ValueId next = kNoValue;  // the first input that is computed
      for (ValueId v : node->inputs) {
        if (next == kNoValue && v != kNoValue && graph_.constant(v) == nullptr) next = v;
      }
      if (next == kNoValue) return nullptr;
      x = next;
    }
    return nullptr;
  }

  // Groups as small as the graph allows: single heads, or heads that share keys and values.
  void try_heads(const LinearLayer& layer) {
    const auto size = head_size(graph_, shapes_, layer.x);
    if (!size || layer.k % *size != 0) return;
    const int64_t heads = layer.k / *size;
    std::string reason;
    for (int64_t group = 1; group < heads; ++group) {
      if (heads % group != 0) continue;
      UnitSite site;
      const Status status = make_site(layer, group * *size, site);
      constexpr std::array<std::string_view, 1> kSoftmax = {"Softmax"};
      if (status.ok() && has_node(graph_, *site.flow, kSoftmax)) {
        site.unit_name = group == 1 ? "heads" : "groups of " + std::to_string(group) + " heads";
        found_.sites.push_back(std::move(site));
        return;
      }
      if (reason.empty()) reason = status.ok() ? "not an attention" : status.message();
    }
    found_.refused.push_back(layer.name + ": " + (reason.empty() ? "it has one head only" : reason));
  }

  UnitKind kind_;
  const Graph& graph_;
  const ValueShapes& shapes_;
  std::span<const LinearLayer> layers_;
  UnitSites found_;
};

}  // namespace

std::vector<const LinearLayer*> UnitSite::layers() const {
  std::vector<const LinearLayer*> all;
  for (const UnitFlow::Cut& cut : flow->cuts()) all.push_back(cut.layer);
  return all;
}

bool is_attention_output(const Graph& graph, const ValueShapes& shapes, const LinearLayer& layer) {
  return head_size(graph, shapes, layer.x).has_value();
}

Status check_names(std::span<const LinearLayer> layers, std::span<const std::string> patterns) {
  for (const std::string& pattern : patterns) {
    const bool found = std::any_of(layers.begin(), layers.end(), [&](const LinearLayer& l) { return is_named(l, pattern); });
    if (!found) return {Code::kUsage, "no linear layer is called '" + pattern + "'"};
  }
  return {};
}

UnitSites find_units(UnitKind kind, const Graph& graph, const ValueShapes& shapes, std::span<const LinearLayer> layers) {
  return Search(kind, graph, shapes, layers).run();
}

}  // namespace sprun::compress
