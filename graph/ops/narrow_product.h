// A product of f32 activations with constant weights that stay as small as they are stored: 8-bit codes with scales, f16
// or bf16 (kernels/gemm, GemmNarrow). Equal to the product with the weights as f32, up to rounding.
#pragma once

#include <span>
#include <vector>

#include "graph/ops/float_weight.h"

namespace sprun::graph {

class NarrowProduct {
 public:
  // False where no vector kernel of this CPU takes weights of this type: they are then better kept as f32.
  static bool available(DType weights);

  // Weights of one type that share X [M, K]. Packs them and sets kernel, detail and scratch_bytes of ctx; the constants
  // may be released afterwards.
  static Result<NarrowProduct> prepare(PrepareContext& ctx, int64_t m, std::span<const FloatWeight> weights);

  // Where the results of one weight go.
  struct Output {
    float* y = nullptr;
    int64_t ldy = 0;
    kernels::Epilogue epilogue;
  };
  // output(i) says so for weight i. X [M, K] is dense.
  template <class MakeOutput>
  void run(ThreadPool& pool, const float* x, void* scratch, const MakeOutput& output) const {
    run_segments(
        pool, *info_->kernel, grid_, panels_, scratch,
        [&](int i) {
          const Weight& w = weights_[static_cast<size_t>(i)];
          const Output to = output(i);
          kernels::GemmNarrowArgs args;
          args.m = m_, args.n = w.n, args.k = k_;
          args.x = x, args.ldx = k_;
          args.w = w.blob.data.get();
          args.block_params = w.block_params, args.block_size = w.block_size;
          args.scale = w.scale;
          args.y = to.y, args.ldy = to.ldy, args.epilogue = to.epilogue;
          return args;
        },
        [](int, const kernels::TileRange&) {});
  }

 private:
  struct Weight {
    PackedBlob blob;
    int64_t n = 0, block_size = 0;
    const float* block_params = nullptr;  // into the blob, as `scale`
    const float* scale = nullptr;
  };
  Result<Weight> pack(PackedCache& cache, const FloatWeight& source) const;

  const kernels::KernelInfo<kernels::GemmNarrowKernel>* info_ = nullptr;
  std::vector<Weight> weights_;
  PanelMap panels_;
  kernels::TileGrid grid_{};
  int64_t m_ = 0, k_ = 0;
};

}  // namespace sprun::graph
