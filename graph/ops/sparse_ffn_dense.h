// The dense path of sprun.SparseFfn: the layers as sprun.Linear, sprun.LinearInt8 or MatMulNBits run them, with the
// selection between. Many rows at once take it, and every form of weights that no sparse kernel has.
#pragma once

#include <optional>
#include <string>

#include "graph/ops/inner_step.h"
#include "graph/ops/sparse_ffn.h"
#include "graph/ops/sparse_ffn_codes.h"

namespace sprun::graph {

class FfnDense {
 public:
  // Chooses kernels and adds to the flops and scratch_bytes of ctx. `problem` must outlive the result. gather: up and down
  // by FfnCodeRows while few neurons are active; precondition: no reason against that.
  static Result<FfnDense> prepare(PrepareContext& ctx, const FfnProblem& problem, bool gather = false);
  // Y of the whole layer, and counts in `counter`.
  Status run(const RunContext& ctx, const FfnRow& row, DensityCounter& counter) const;

  std::string kernel() const;
  std::string detail() const;
  const FfnCodeRows* rows() const { return rows_ ? &*rows_ : nullptr; }

 private:
  // Where things lie in scratch.
  struct Memory {
    int64_t x = 0, x_gate = 0, x_up = 0, gate = 0, up = 0, hidden = 0, y = 0, residual = 0, keys = 0, inner = 0, rows = 0;
  };
  Status prepare_first(PrepareContext& ctx);
  Result<InnerStep> layer_step(PrepareContext& ctx, const FfnLayer& layer, int64_t n, std::string_view activation,
                               bool second = false);
  void plan_memory(PrepareContext& ctx);
  Result<Tensor> wide_bias(const PrepareContext& ctx, int input) const;
  bool joins() const;
  const void* slice_x(const RunContext& ctx, const void* x, const FfnLayer& layer, int64_t at) const;
  void add_codes(const PrepareContext& ctx, const FfnLayer& layer, InnerStep::Spec& spec) const;
  void round_rows(const RunContext& ctx, const FfnLayer& layer, float* rows, int64_t ld) const;
  const float* widen(const RunContext& ctx, int input, int64_t at) const;
  void activate_gate(const RunContext& ctx, float* gate) const;
  void mask_rows(const RunContext& ctx, DensityCounter& counter) const;
  bool run_gathered(const RunContext& ctx, const FfnRow& row, const float* x, DensityCounter& counter) const;
  void finish_rows(const RunContext& ctx, const FfnRow& row, DensityCounter& counter) const;
  void count_rows(const RunContext& ctx, DensityCounter& counter) const;
  template <class T>
  void count_values(const RunContext& ctx, T zero, DensityCounter& counter) const;

  const FfnProblem* p_ = nullptr;
  DType dtype_ = DType::kF32;
  bool direct_ = false;  // the gate layer makes the hidden values itself, with static quantisation as u8 codes
  InnerStep gate_, up_, down_;
  std::optional<FfnCodeRows> rows_;
  bool has_up_step_ = false;
  int64_t ld_gate_ = 0, ld_up_ = 0;  // row strides of the results of the first layers
  Memory at_;
  bool has_residual_ = false;
};

}  // namespace sprun::graph
