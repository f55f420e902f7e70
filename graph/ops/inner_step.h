// A node that another op runs inside itself: an op made of linear layers uses the layers' own kernels, packed weights
// and choices.
//
//   prepare():  SPRUN_ASSIGN(gate_, InnerStep::prepare(ctx, std::move(spec)));
//   run():      gate_.run(ctx, x, y, nullptr, scratch)
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "graph/ops/op.h"

namespace sprun::graph {

class InnerStep {
 public:
  static constexpr int kAbsent = -1, kX = -2, kResidual = -3;  // else: number of an input of the outer node
  static constexpr size_t kMaxInputs = 20;

  struct Spec {
    Node node;              // domain, op_type, version and attributes
    std::vector<int> from;  // where each input comes from
    // Takes the place of an outer input, by position in `from`: constants in another type. Empty tensors: none.
    std::vector<Tensor> own = {};
    ConstTensorView x, y;   // types
    ConstTensorView residual = {};
  };

  InnerStep() = default;
  // Chooses a kernel as the op itself does; rejections and unread inputs go to the outer context.
  static Result<InnerStep> prepare(PrepareContext& outer, Spec spec);
  // residual: null where the spec has none. scratch: scratch_bytes() at least, 64-byte aligned.
  Status run(const RunContext& outer, const void* x, void* y, const void* residual, void* scratch) const;

  int64_t scratch_bytes() const { return scratch_bytes_; }
  const std::string& kernel() const { return kernel_; }
  const std::string& detail() const { return detail_; }
  double flops() const { return flops_; }

 private:
  std::unique_ptr<Spec> spec_;  // at one address: contexts keep the node
  std::unique_ptr<const OpState> state_;
  int64_t scratch_bytes_ = 0;
  std::string kernel_, detail_;
  double flops_ = 0;
};

}  // namespace sprun::graph
