// Adds activations to InputStatistics with the library's own matrix product.
#pragma once

#include <span>

#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/graph_runner.h"
#include "tools/compress/input_statistics.h"

namespace sprun::compress {

class GramProduct {
 public:
  static Result<GramProduct> create(ThreadPool& pool);

  // x[.., K] of a float type; rows: those that count, empty for all of them. kBadInput if an
  // element is not finite.
  Status add(const Tensor& x, std::span<const int64_t> rows, InputStatistics& statistics);

 private:
  explicit GramProduct(GraphRunner runner) : runner_(std::move(runner)) {}

  GraphRunner runner_;
  std::vector<float> rows_;
};

}  // namespace sprun::compress
