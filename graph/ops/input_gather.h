// A linear layer whose input has exact zeros (sprun.Threshold and its kin in front of it): for few rows only the weights
// of inputs that are not zero are read, by kernels/sparse_input. For sprun.Linear and sprun.LinearDequant that the pass
// mark_sparse_input marked.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "graph/ops/ffn_density.h"
#include "graph/ops/float_weight.h"
#include "kernels/sparse_input/sparse_input.h"

namespace sprun::graph {

class InputGather {
 public:
  // Names what makes the zeros, for people; empty: no mark.
  static std::string mark(const AttrMap& attrs) { return std::string(attrs.get_string("input_zeros", "")); }
  // "thresholded input (TEAL): leaving out zeros is exact; density expected unknown; ", or empty without a mark.
  static std::string detail(const AttrMap& attrs);
  // Why the layer reads all weights; empty when it does not.
  static std::string reason_against(const PrepareContext& ctx, int64_t m, std::span<const FloatWeight> weights);

  // Weights of one type that share X [M, K]. Packs them and sets kernel, detail and scratch_bytes of ctx. Precondition:
  // no reason against.
  static Result<InputGather> prepare(PrepareContext& ctx, int64_t m, std::span<const FloatWeight> weights);

  // A record of the layer for explain. Not in the book of the model, which is of feed-forward layers.
  static std::shared_ptr<LayerDensity> density(const PrepareContext& ctx, const FloatWeight& weight);

  struct Output {
    float* y = nullptr;
    int64_t ldy = 0;
    kernels::Epilogue epilogue;
  };
  // Lists the inputs that are not zero into scratch, counts them, and returns how many there are for all rows.
  int64_t list(const float* x, void* scratch, DensityCounter& counter) const;
  // False when so many inputs are listed that reading all weights is faster.
  bool worth(int64_t listed) const;
  double limit() const;

  // After list(). output(i) says where weight i writes.
  template <class MakeOutput>
  void run(ThreadPool& pool, int64_t listed, void* scratch, const MakeOutput& output) const {
    const Memory at = memory(scratch);
    kernels::SparseInputArgs args;
    args.listed = listed, args.ldx = kernels::listed_capacity(k_);
    args.m = m_, args.k = k_, args.ids = at.ids, args.x = at.values;
    pool.parallel_for(panels_.total(), 1, [&](int64_t begin, int64_t end, int worker) {
      panels_.for_each(begin, end, [&](int i, int64_t from, int64_t to) {
        const Weight& w = weights_[static_cast<size_t>(i)];
        const Output out = output(i);
        kernels::SparseInputArgs part = args;
        part.n = w.n, part.w = w.blob.data.get(), part.width = w.width, part.scale = w.scale;
        part.y = out.y, part.ldy = out.ldy, part.epilogue = out.epilogue;
        info_->kernel->run(part, from, to, at.acc + worker * acc_floats_);
      });
    });
  }

 private:
  struct Weight {
    PackedBlob blob;
    int64_t n = 0, width = 0;
    const float* scale = nullptr;  // into the blob
  };
  struct Memory {
    int32_t* ids;
    float *values, *acc;
    int64_t total;
  };
  Memory memory(void* scratch) const;
  Result<Weight> pack(PackedCache& cache, const FloatWeight& source) const;

  const kernels::KernelInfo<kernels::SparseInputKernel>* info_ = nullptr;
  std::vector<Weight> weights_;
  PanelMap panels_;
  kernels::SparseInputWeights type_{};
  bool forced_ = false;
  int64_t m_ = 0, k_ = 0, acc_floats_ = 0;
  int workers_ = 1;
};

}  // namespace sprun::graph
