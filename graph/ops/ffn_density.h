// How many neurons of sparse layers were active, counted while a model runs.
//
// A model has one book, in its cache of packed weights: every plan of every session adds to the same records.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "graph/ops/op.h"
#include "runtime/base/packed_cache.h"

namespace sprun::graph {

// Thread-safe: any number of sessions add, anyone reads. Counts are complete once the runs have ended.
class DensityCounter {
 public:
  void add(int64_t active, int64_t rows) {
    active_.fetch_add(active, std::memory_order_relaxed);
    rows_.fetch_add(rows, std::memory_order_relaxed);
  }
  int64_t active() const { return active_.load(std::memory_order_relaxed); }
  int64_t rows() const { return rows_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> active_{0}, rows_{0};
};

// One layer of the model.
struct LayerDensity {
  uint64_t weight = 0;   // Tensor::id of the down weight: tells layers of one name apart
  std::string name;      // of the node
  std::string pattern;   // "ReLU FFN"
  double expected = -1;  // density; negative: not known before running
  int64_t width = 0;     // values of a row that may be zero
  DensityCounter counter;

  // Part of the values that was not zero; negative before any run.
  double measured() const;
};

// Thread-safe.
class DensityBook {
 public:
  static Result<std::shared_ptr<DensityBook>> of(PackedCache& cache);
  // The record of the layer with this name and weight, made from `layer` on first use.
  std::shared_ptr<LayerDensity> record(uint64_t weight, const std::string& name, const std::string& pattern,
                                       double expected, int64_t width);
  // All, in the order in which layers were planned first.
  std::vector<std::shared_ptr<const LayerDensity>> records() const;

 private:
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<LayerDensity>> records_;
};

// The state of an op whose layer may have zeros to skip.
class SparseActivationState : public OpState {
 public:
  std::shared_ptr<LayerDensity> density;  // null where zeros are not counted
};

}  // namespace sprun::graph
