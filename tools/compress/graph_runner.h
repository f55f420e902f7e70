// GraphRunner: runs a graph that is in memory, not in a file. extract_part: the piece of a graph
// between given values.
//
//   SPRUN_ASSIGN(Graph part, extract_part(graph, {x}, {y}));
//   SPRUN_ASSIGN(GraphRunner runner, GraphRunner::create(std::move(part), pool, SparseMode::kOff));
//   SPRUN_ASSIGN(std::vector<Tensor> outputs, runner.run(inputs, stop));
#pragma once

#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"
#include "runtime/session/executor.h"
#include "sprun/sparse.h"
#include "sprun/status.h"
#include "sprun/tensor.h"

namespace sprun::compress {

// The nodes that compute `to` from `from` and constants, as a graph with inputs `from` and outputs
// `to`, in these orders. Constants share their memory. No value of `to` may be in `from` or
// constant. kInternal if `to` needs a graph input that is not in `from`.
Result<graph::Graph> extract_part(const graph::Graph& graph, std::span<const graph::ValueId> from,
                                  std::span<const graph::ValueId> to);

// One thread at a time. The pool must outlive it.
class GraphRunner {
 public:
  // Runs the load passes on `graph`.
  static Result<GraphRunner> create(graph::Graph graph, ThreadPool& pool, SparseMode sparse);

  // Inputs in the order of the graph's. Plans for the shapes of the last call are kept.
  Result<std::vector<Tensor>> run(std::span<const ConstTensorView> inputs,
                                  std::stop_token stop = {});

  // Least milliseconds of a run, over at least 5 runs and about 20 ms, after one that plans and
  // warms: what others do on the machine only adds to it. `bytes_between`: what a larger model reads
  // between two runs of this piece of it; so many, up to what caches hold, are read before each run,
  // and then the inputs, so that weights come from memory as they do there.
  Result<double> time_ms(std::span<const ConstTensorView> inputs, std::stop_token stop = {},
                         int64_t bytes_between = 0);

 private:
  GraphRunner() = default;
  Status run_once(std::span<const ConstTensorView> inputs, const std::stop_token& stop);
  Status plan_for(std::span<const ConstTensorView> inputs);

  std::unique_ptr<graph::Graph> graph_;
  std::unique_ptr<PackedCache> packed_;
  std::unique_ptr<Executor> executor_;
  std::string key_;  // types and shapes that executor_ is for
  ThreadPool* pool_ = nullptr;
  SparseMode sparse_ = SparseMode::kAuto;
};

}  // namespace sprun::compress
