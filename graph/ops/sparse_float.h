// An f32 or bf16 product whose weights keep only their stored blocks: the sparse side of sprun.Linear and
// sprun.LinearDequant.
#pragma once

#include <optional>
#include <vector>

#include "graph/ops/float_weight.h"
#include "graph/ops/sparse_choice.h"

namespace sprun::graph {

// Kernel, arguments and element of the packed weights and of X in slabs.
struct SparseF32 {
  using Kernel = kernels::BsrF32Kernel;
  using Args = kernels::BsrF32Args;
  using Element = float;
  static constexpr kernels::ProductType kType = kernels::ProductType::kF32;
  static constexpr std::string_view kName = "f32";
};
struct SparseBf16 {
  using Kernel = kernels::BsrBf16Kernel;
  using Args = kernels::BsrBf16Args;
  using Element = uint16_t;
  static constexpr kernels::ProductType kType = kernels::ProductType::kBf16;
  static constexpr std::string_view kName = "bf16";
};

template <class Type>
class SparseFloat {
 public:
  using Element = typename Type::Element;

  // The sparse form when it is expected to be faster than the dense kernels (or is forced); nullopt, with the reasons
  // in ctx.rejected, when not. The weights share X; dense kernels read them as they are stored. Sets kernel, detail,
  // flops and scratch_bytes of ctx.
  static Result<std::optional<SparseFloat>> choose(PrepareContext& ctx, int64_t m, std::span<const FloatWeight> weights);

  // Where the results of one weight go.
  struct Output {
    float* y = nullptr;
    int64_t ldy = 0;
    kernels::Epilogue epilogue;
  };
  // output(i) says so for weight i. X [M, K] is dense f32.
  template <class MakeOutput>
  void run(ThreadPool& pool, const float* x, void* scratch, const MakeOutput& output) const {
    const auto parallel_for = [&pool](int64_t n, int64_t grain, const auto& fn) { pool.parallel_for(n, grain, fn); };
    const auto& kernel = *info_->kernel;
    auto* slabs = static_cast<Element*>(scratch);
    pack_slabs(kernel, x, slabs, parallel_for);
    char* own = static_cast<char*>(scratch) + kernels::align_scratch(slab_bytes());
    int64_t total = 0;
    for (const auto& parts : parts_) total += parts.count();
    pool.parallel_for(total, 1, [&](int64_t begin, int64_t end, int worker) {
      int64_t first = 0;
      for (size_t s = 0; s < weights_.size(); first += parts_[s].count(), ++s) {
        for (int64_t p = std::max(begin, first); p < std::min(end, first + parts_[s].count()); ++p) {
          const Output to = output(static_cast<int>(s));
          typename Type::Args args;
          args.gemm.m = m_, args.gemm.n = weights_[s].n, args.gemm.k = k_;
          args.gemm.y = to.y, args.gemm.ldy = to.ldy, args.gemm.epilogue = to.epilogue;
          args.w = weights_[s].packed;
          args.slabs = slabs;
          kernel.run(args, parts_[s].range(p - first), own + kernels::align_scratch(kernel.scratch_bytes) * worker);
        }
      }
    });
  }

 private:
  struct Weight {
    PackedBlob blob;
    kernels::BsrWeights packed;
    int64_t n = 0, bytes = 0;
  };

  template <class ParallelFor>
  void pack_slabs(const typename Type::Kernel& kernel, const float* x, Element* slabs,
                  const ParallelFor& parallel_for) const {
    const int64_t slab = x_slab_elements(kernel.layout, k_);
    constexpr int64_t kElementsPerTask = 16 * 1024;
    parallel_for(num_slabs(kernel.layout, m_), kElementsPerTask / (slab + 1) + 1,
                 [&](int64_t begin, int64_t end, int) {
                   for (int64_t s = begin; s < end; ++s) kernel.pack_x(x, k_, m_, k_, s, slabs + s * slab);
                 });
  }
  int64_t slab_bytes() const {
    return num_slabs(info_->kernel->layout, m_) * x_slab_elements(info_->kernel->layout, k_) *
           static_cast<int64_t>(sizeof(Element));
  }
  Status pack(PackedCache& cache, const FloatWeight& weight, const SparseSource& source);

  const kernels::KernelInfo<typename Type::Kernel>* info_ = nullptr;
  int64_t m_ = 0, k_ = 0;
  std::vector<Weight> weights_;
  std::vector<kernels::BsrParts> parts_;  // of each weight
};

extern template class SparseFloat<SparseF32>;
extern template class SparseFloat<SparseBf16>;

}  // namespace sprun::graph
