// How units pass through the kinds of nodes.
#pragma once

#include <optional>

#include "tools/compress/unit_flow.h"

namespace sprun::compress {

// First index and end of what a Slice with constant bounds and steps of one takes from `axis` of its input, if it cuts that
// axis alone.
struct CutRange {
  int64_t first = 0, end = 0;
};
std::optional<CutRange> cut_range(const graph::Graph& graph, const graph::Node& slice, const Shape& input, int axis);

class UnitRules {
 public:
  UnitRules(UnitFlow& flow, graph::NodeId node) : flow_(flow), node_(flow.graph_.node(node)), id_(node) {}

  // Gives units to all inputs and outputs of the node that have any, from those that are known. False: more must be known
  // first. kBadModel if the node does something with units that no rule covers.
  Result<bool> apply();

 private:
  const Shape* shape(graph::ValueId v) const;
  Status refuse(const std::string& why) const;
  Result<bool> elementwise();
  Result<bool> reshape();
  Result<bool> transpose();
  Result<bool> along_axis(int64_t axis);
  Result<bool> reduce();
  Result<bool> split();
  Result<bool> slice();
  Result<bool> cut_units(int axis);
  Result<bool> gather();
  Result<bool> matmul();
  std::vector<int64_t> int_list(const char* attribute, size_t slot) const;

  UnitFlow& flow_;
  const graph::Node& node_;
  graph::NodeId id_;
};

}  // namespace sprun::compress
