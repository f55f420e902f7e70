// A u8 x s8 product whose weights keep only their stored blocks: the sparse side of Int8Product.
#pragma once

#include <optional>
#include <vector>

#include "graph/ops/sparse_weight.h"
#include "kernels/bsr_spmm/bsr_spmm.h"

namespace sprun::graph {

// One constant weight of a layer.
struct Int8Constant {
  SparseSource source;     // float weights are quantised per output channel, symmetric
  float alpha = 1.0f;      // multiplies the scale of float weights
  bool quantise() const { return is_float(source.weight.tensor->dtype()); }
};

class SparseInt8 {
 public:
  struct Weight {
    PackedBlob blob;
    kernels::BsrWeights packed;
    int64_t n = 0, bytes = 0;
    const int32_t* sums = nullptr;  // [units * unit_rows]
    const float* scale = nullptr;   // [N]; only of quantised float weights
  };

  // The sparse form when it is expected to be faster than the dense kernels (or is forced); nullopt, with the reasons
  // in ctx.rejected, when not. All weights share X and get one pattern.
  static Result<std::optional<SparseInt8>> choose(PrepareContext& ctx, int64_t m, std::span<const Int8Constant> weights);

  const Weight& weight(size_t i) const { return weights_[i]; }
  std::string_view kernel_name() const { return info_->name; }
  int64_t unit_rows() const { return info_->kernel->layout.unit_rows; }
  // Multiply-adds that are done for each row of X.
  double stored() const { return stored_; }

  int64_t scratch_bytes(int workers) const;
  // `args` gives the epilogue of each weight: everything of GemmU8S8Args but w, w_sum. done(segment, range in rows and
  // outputs) is called for each finished part.
  template <class MakeArgs, class Done>
  void run(ThreadPool& pool, const uint8_t* x, int64_t ldx, void* scratch, const MakeArgs& args, const Done& done) const;

 private:
  Status pack(PackedCache& cache, const Int8Constant& weight);
  void split(int workers);

  const kernels::KernelInfo<kernels::BsrU8S8Kernel>* info_ = nullptr;
  int64_t m_ = 0, k_ = 0;
  double stored_ = 0;
  std::vector<Weight> weights_;
  std::vector<kernels::BsrParts> parts_;
};

template <class MakeArgs, class Done>
void SparseInt8::run(ThreadPool& pool, const uint8_t* x, int64_t ldx, void* scratch, const MakeArgs& args,
                     const Done& done) const {
  const kernels::BsrU8S8Kernel& kernel = *info_->kernel;
  const auto parallel_for = [&pool](int64_t n, int64_t grain, const auto& fn) { pool.parallel_for(n, grain, fn); };
  uint8_t* slabs = nullptr;
  if (kernel.pack_x != nullptr) {
    slabs = static_cast<uint8_t*>(scratch);
    kernels::pack_x_slabs(kernel, x, ldx, m_, k_, slabs, parallel_for);
  }
  const int64_t slab_bytes = slabs == nullptr ? 0 : num_slabs(kernel.layout, m_) * x_slab_elements(kernel.layout, k_);
  char* own = static_cast<char*>(scratch) + kernels::align_scratch(slab_bytes);
  int64_t total = 0;
  for (const kernels::BsrParts& parts : parts_) total += parts.count();
  pool.parallel_for(total, 1, [&](int64_t begin, int64_t end, int worker) {
    void* memory = own + kernels::align_scratch(kernel.scratch_bytes) * worker;
    int64_t first = 0;
    for (size_t s = 0; s < weights_.size(); ++s) {
      kernels::BsrU8S8Args part = {args(static_cast<int>(s)), weights_[s].packed, slabs};
      part.gemm.w_sum = weights_[s].sums;
      for (int64_t p = std::max(begin, first); p < std::min(end, first + parts_[s].count()); ++p) {
        const kernels::BsrRange range = parts_[s].range(p - first);
        kernel.run(part, range, memory);
        done(static_cast<int>(s), range, kernel.layout);
      }
      first += parts_[s].count();
    }
  });
}

}  // namespace sprun::graph
