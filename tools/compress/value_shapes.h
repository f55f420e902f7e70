// Shapes of all values of a graph for given inputs, found without running it.
#pragma once

#include "graph/ir/graph.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "sprun/tensor.h"
#include "tools/compress/calibration.h"

namespace sprun::compress {

class ValueShapes {
 public:
  // kBadInput if the batch does not fit the graph.
  static Result<ValueShapes> create(const graph::Graph& graph, const Batch& batch, ThreadPool& pool);

  // nullptr for values that depend on elements, and for values younger than this object.
  const Shape* of(graph::ValueId v) const;

 private:
  explicit ValueShapes(graph::Graph graph) : graph_(std::move(graph)) {}

  graph::Graph graph_;  // with what depends on shapes only computed; value ids are those of the original
};

}  // namespace sprun::compress
