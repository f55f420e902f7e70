// Calibration data: batches of model inputs, and the values inside the model for them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "sprun/tensor.h"
#include "tools/compress/graph_runner.h"

namespace sprun::compress {

// Some samples that run together; one tensor per graph input, in that order.
struct Batch {
  std::vector<Tensor> inputs;
  int64_t samples = 0;
};

struct Calibration {
  std::vector<Batch> batches;     // what methods learn from
  std::vector<Batch> held_out;    // what the result is judged on
  bool held_out_is_seen = false;  // too few samples for two parts: judged on the same ones
  std::string source;             // for the report and the metadata of the result

  int64_t samples() const;
  int64_t held_out_samples() const;
  bool empty() const { return batches.empty(); }
};

// The rows of x that count, in a batch: those whose element of an integer input with "mask" in its
// name is not 0, if there is one with as many elements as x has rows. Empty: all of them.
std::vector<int64_t> unmasked_rows(const graph::Graph& graph, const Batch& batch, const Shape& x);

// ActivationWalk computes values of a graph for every batch, one after the other in an order that
// the caller has fixed beforehand, each from what was computed before. Between two calls the graph
// may be changed wherever it has not been computed yet, so that a value sees everything done to its
// predecessors. In total every node runs once per batch. Only values that are still needed are
// kept.
class ActivationWalk {
 public:
  // Everything must outlive the walk. `values`: what will be asked for.
  ActivationWalk(const graph::Graph& graph, const Calibration& calibration, ThreadPool& pool,
                 std::vector<graph::ValueId> values, std::stop_token stop);

  // Calls fn(batch index, value) for the next of `values`.
  using Visitor = std::function<Status(size_t batch, const Tensor& value)>;
  Status next(const Visitor& fn);

 private:
  struct Part {
    std::vector<graph::ValueId> from, to;
  };
  using Kept = std::map<graph::ValueId, Tensor>;

  Part plan_part(graph::ValueId v) const;
  void drop_unneeded();
  Result<std::vector<Tensor>> run_part(const Part& part, const Kept& kept);
  Result<GraphRunner> make_runner(const Part& part, const Kept& kept) const;

  const graph::Graph& graph_;
  ThreadPool& pool_;
  std::vector<graph::ValueId> values_;
  size_t at_ = 0;
  std::stop_token stop_;
  std::vector<Kept> kept_;  // per batch; the graph inputs among them
  std::unique_ptr<GraphRunner> runner_;
  std::string runner_key_;
};

}  // namespace sprun::compress
