// The sparse path of sprun.SparseFfn: kernels/sparse_ffn, which reads the up and down weights of active neurons only and
// falls back to all of them by itself when too many are active. For few rows, or wherever forced.
#pragma once

#include <string>

#include "graph/ops/sparse_ffn.h"
#include "kernels/sparse_ffn/sparse_ffn.h"
#include "runtime/base/packed_cache.h"

namespace sprun::graph {

// Why gathering what is active for some of several rows is no gain; empty when it is, or for one row.
// density: of one row, negative where it is not known.
std::string reason_against_union(double density, int64_t rows, kernels::FfnWeights weights);

class FfnGather {
 public:
  // Why this layer does not take the sparse path; empty when it does.
  static std::string reason_against(const PrepareContext& ctx, const FfnProblem& problem);
  // Chooses kernels and packs the weights. Sets scratch_bytes, flops and unread_inputs of ctx. Precondition: no reason
  // against. `problem` must outlive the result.
  static Result<FfnGather> prepare(PrepareContext& ctx, const FfnProblem& problem);
  // `row` has the thresholds.
  void run(const RunContext& ctx, const FfnRow& row, DensityCounter& counter) const;

  std::string_view kernel() const { return ffn_.name; }
  // "65 % of the weight bytes at 8 % density"
  std::string detail(double density) const;

 private:
  const FfnProblem* p_ = nullptr;
  kernels::SparseFfn ffn_;
  PackedBlob weights_;
  kernels::SparseFfnRule rule_;
  kernels::FfnRange range_ = kernels::FfnRange::kPerRow;
};

}  // namespace sprun::graph
