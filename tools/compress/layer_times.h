// How long single linear layers take, with the kernels that the runtime chooses for them.
#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <vector>

#include "graph/ir/graph.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/calibration.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/report.h"

namespace sprun::compress {

// The layer alone: what computes `y` from `x` in `graph`, and from inputs of the model, such as a
// mask, which are those of `sample`.
Result<double> time_layer(const graph::Graph& graph, graph::ValueId x, graph::ValueId y,
                          const Tensor& input, const Batch& sample, ThreadPool& pool,
                          std::stop_token stop);

// A layer of a graph and what it reads for one sample.
using LayerVisitor = std::function<Status(const LinearLayer& layer, const Tensor& input)>;
// Calls fn for each linear layer of the graph without an obstacle, in order.
Status visit_layers(const graph::Graph& graph, const Batch& sample, ThreadPool& pool,
                    std::stop_token stop, const LayerVisitor& fn);

// Fills ms_before and ms_after of the layers that were changed. Returns the milliseconds that they
// save together, where layers were rebuilt that of all linear layers before and after; none if some
// cannot be timed alone.
Result<std::optional<double>> time_changed_layers(const graph::Graph& before,
                                                  const graph::Graph& after, const Batch& sample,
                                                  ThreadPool& pool, std::stop_token stop,
                                                  Report& report);

}  // namespace sprun::compress
