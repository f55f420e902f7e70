// Which elements of which values belong to which unit (a hidden neuron of a feed-forward network, a group of attention
// heads), so that units can be removed from all of them at once.
//
//   UnitFlow flow(graph, shapes, layers);
//   SPRUN_TRY(flow.spread(hidden, {axis, {0, 1, 2, ..}}));   // finds everything that has to shrink with `hidden`
//   SPRUN_TRY(flow.remove(graph, keep));                     // and shrinks it
//
// From the value that one names, units spread through the nodes that make it and use it, both ways, to the linear layers
// at both ends. Rules for the kinds of nodes are in unit_rules.cc; a node without a rule is a reason to refuse. Keys and values
// that are handed from step to step (kv_states.h) shrink on both sides of the model.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/value_shapes.h"

namespace sprun::compress {

// An axis of a value, from the front, and the unit of each index on it.
struct UnitAxis {
  int axis = 0;
  std::vector<int32_t> unit;
  bool operator==(const UnitAxis&) const = default;
};

// The same for a value of shape `to` with the elements of one of shape `from` in the same order; kBadModel if no single axis
// of `to` tells the unit.
Result<UnitAxis> map_units(const Shape& from, const UnitAxis& units, const Shape& to);

class UnitFlow {
 public:
  // Everything must outlive it; the graph is read only by spread().
  UnitFlow(const graph::Graph& graph, const ValueShapes& shapes, std::span<const LinearLayer> layers);

  // kBadModel with the reason if units cannot be removed from v alone.
  Status spread(graph::ValueId v, UnitAxis units);

  // Linear layers that make units (their outputs shrink) or read them (their inputs shrink).
  struct Cut {
    const LinearLayer* layer;
    bool outputs;
    std::vector<int32_t> unit;  // of each output or input
  };
  const std::vector<Cut>& cuts() const { return cuts_; }
  // Nodes that handle values with units, the layers among them.
  const std::set<graph::NodeId>& nodes() const { return visited_; }

  // keep: per unit. The graph may have changed since spread() in elements of weights and biases and by nodes behind the
  // layers that read the units, not otherwise. Prunes weights of reading layers as it finds them.
  Status remove(graph::Graph& graph, const std::vector<bool>& keep) const;

 private:
  friend class UnitRules;
  struct ConstantEdit {
    graph::NodeId node;
    size_t slot;
    UnitAxis units;
  };

  const UnitAxis* units_of(graph::ValueId v) const;
  Status set_units(graph::ValueId v, UnitAxis units);
  Status set_input_units(graph::NodeId n, size_t slot, UnitAxis units);
  Status visit_layer(const LinearLayer& layer);
  Status remove_from_layer(graph::Graph& graph, const Cut& cut, const std::vector<bool>& keep) const;
  void remove_from_declared(graph::Graph& graph, const std::vector<bool>& keep) const;
  Status remove_from_bounds(graph::Graph& graph, graph::NodeId n, const std::vector<bool>& keep) const;
  Status remove_from_sizes(graph::Graph& graph, graph::NodeId n, const std::vector<bool>& keep) const;

  const graph::Graph& graph_;
  const ValueShapes& shapes_;
  std::map<graph::NodeId, const LinearLayer*> layers_;
  std::map<graph::ValueId, graph::ValueId> other_side_;  // the present of a past and the other way round
  std::map<graph::ValueId, UnitAxis> units_;
  std::vector<graph::NodeId> pending_;
  std::set<graph::NodeId> visited_, unfinished_;
  std::vector<Cut> cuts_;
  std::vector<ConstantEdit> constants_;
};

}  // namespace sprun::compress
