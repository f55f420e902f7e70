// The original against the compressed graph on data that no method has seen.
#pragma once

#include <stop_token>
#include <vector>

#include "graph/ir/graph.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/calibration.h"
#include "tools/compress/report.h"

namespace sprun::compress {

// Runs both on the batches and compares every output of a float type; all others must not differ in
// shape, except keys and values whose declared heads did. The batches are those of `before`, of
// which `after` gets what it still reads. Padded rows (calibration.h) do not count. kBadInput if the data does not fit the graph.
Result<std::vector<OutputReport>> compare_outputs(const graph::Graph& before,
                                                  const graph::Graph& after,
                                                  const std::vector<Batch>& batches,
                                                  ThreadPool& pool, std::stop_token stop);

}  // namespace sprun::compress
