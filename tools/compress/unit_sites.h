// Where a graph has units that can be removed: hidden neurons of feed-forward networks, heads of attention.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/unit_flow.h"
#include "tools/compress/value_shapes.h"

namespace sprun::compress {

enum class UnitKind : uint8_t {
  kFfn,    // one unit per hidden neuron
  kHeads,  // one per attention head, or per group of heads that share keys and values
};

// One feed-forward network or attention.
struct UnitSite {
  const LinearLayer* reader = nullptr;  // its last layer, whose inputs the units are
  std::vector<int32_t> unit;            // of each input of the reader
  int64_t units = 0;
  std::string unit_name;                // "neurons", "heads", "groups of 4 heads"
  std::unique_ptr<UnitFlow> flow;       // all that shrinks

  // The layers that make the units, and the reader.
  std::vector<const LinearLayer*> layers() const;
};

struct UnitSites {
  std::vector<UnitSite> sites;        // in the order in which they run
  std::vector<std::string> refused;   // "layer: reason" for places that look like one
};

// Everything must outlive the result.
UnitSites find_units(UnitKind kind, const graph::Graph& graph, const ValueShapes& shapes,
                     std::span<const LinearLayer> layers);

// True if the layer reads the product of attention weights and values, reordered.
bool is_attention_output(const graph::Graph& graph, const ValueShapes& shapes, const LinearLayer& layer);

// kUsage if one of the patterns means no layer.
Status check_names(std::span<const LinearLayer> layers, std::span<const std::string> patterns);

}  // namespace sprun::compress
