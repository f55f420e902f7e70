// Active neurons only, for layers of sprun.SparseFfn whose weights stay codes while X is float: 8-bit codes behind
// DequantizeLinear, 2, 4 and 8 bits of MatMulNBits. The gate is the dense layer; rows of up are read where they are active
// (kernels/nbits), and so are those of down, whose codes are laid out neuron by neuron (kernels/sparse_input).
//
// Leaving out zeros is exact and so is the layout: no code and no scale changes. Used by FfnDense, which has the dense
// layers for when too many neurons are active.
#pragma once

#include <string>
#include <vector>

#include "graph/ops/sparse_ffn.h"
#include "kernels/nbits/nbits.h"
#include "kernels/sparse_input/sparse_input.h"
#include "runtime/base/packed_cache.h"

namespace sprun::graph {

class FfnCodeRows {
 public:
  // True if the layer is of these forms.
  static bool fits(const FfnProblem& problem);
  // Why it stays dense all the same; empty when it does not. Precondition: fits.
  static std::string reason_against(const PrepareContext& ctx, const FfnProblem& problem);
  // Lays out the weights. Precondition: no reason against. `problem` must outlive the result.
  static Result<FfnCodeRows> prepare(PrepareContext& ctx, const FfnProblem& problem);

  int64_t scratch_bytes() const { return memory(nullptr).total; }
  // True if `active` values of all rows say already that list() will be false.
  bool too_many(int64_t active) const;
  // Lists the neurons that are not zero in s [m, d_ff]. False when they are so many that the dense layers are faster.
  bool list(const float* s, void* scratch, int64_t* listed) const;
  // y = (s * up(x)) Wd + bias + residual of the listed neurons; s as given to list(). x [m, d_in], residual may be null.
  // Returns how many hidden values of all rows are not zero.
  int64_t run(const RunContext& ctx, const float* x, int64_t listed, const float* residual, float* y, void* scratch) const;

  std::string kernel() const;
  std::string detail(double density) const;

 private:
  struct Memory {
    int32_t *ids, *down_ids;
    float *values, *down_values, *up, *x, *acc;
    int64_t total;
  };
  Memory memory(void* scratch) const;
  Status prepare_up(PrepareContext& ctx);
  Status prepare_down(PrepareContext& ctx);
  kernels::NbitsWeight up_weight(const RunContext& ctx) const;
  void run_up(const RunContext& ctx, const float* x, int64_t listed, const Memory& at) const;
  void run_down(const RunContext& ctx, int64_t listed, const float* residual, float* y, const Memory& at) const;
  bool gathers_up() const { return p_->gated && !p_->fused_up; }

  const FfnProblem* p_ = nullptr;
  const kernels::KernelInfo<kernels::NbitsKernel>* up_kernel_ = nullptr;
  const kernels::KernelInfo<kernels::SparseInputKernel>* down_kernel_ = nullptr;
  kernels::SparseInputWeights down_type_{};
  kernels::NbitsWeight up_;  // sizes, and what lies in up_blob_
  PackedBlob up_blob_, down_blob_;
  kernels::SparseInputArgs down_;  // what is the same for every run
  int64_t up_row_bytes_ = 0, down_row_bytes_ = 0, down_param_bytes_ = 0;
  int64_t x_stride_ = 0;
  int workers_ = 1;
  bool forced_ = false;
};

}  // namespace sprun::graph
