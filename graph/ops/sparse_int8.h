// A u8 x s8 product whose weights keep only what is not zero: the sparse side of Int8Product. Many rows run block-sparse
// products (kernels/bsr_spmm), few rows compressed weights (kernels/bsr_gemv).
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "graph/ops/columns.h"
#include "graph/ops/sparse_choice.h"
#include "kernels/bsr_gemv/bsr_gemv.h"
#include "kernels/bsr_spmm/bsr_spmm.h"
#include "kernels/gemm/quantize_rows.h"

namespace sprun::graph {

// One constant weight of a layer.
struct Int8Constant {
  SparseSource source;     // float weights are quantised per output channel, symmetric
  float alpha = 1.0f;      // multiplies the scale of float weights
  bool quantise() const { return is_float(source.weight.tensor->dtype()); }
};

class SparseInt8 {
 public:
  // The sparse form when it is expected to be faster than the dense kernels (or is forced); nullopt, with the reasons
  // in ctx.rejected, when not. All weights share X and get one pattern.
  // codes: the results become 8-bit codes, so that floats of a part stay in a worker's own memory.
  static Result<std::optional<SparseInt8>> choose(PrepareContext& ctx, int64_t m, std::span<const Int8Constant> weights,
                                                  bool codes);

  // Scales of quantised float weights, [N].
  const float* scale(size_t i) const { return weights_[i].scale; }
  std::string_view kernel_name() const { return info_ != nullptr ? info_->name : gemv_->name; }
  // Multiply-adds that are done for each row of X.
  double stored() const { return stored_; }
  int64_t scratch_bytes(int workers) const;
  // True when done() gets the floats or the codes in a worker's memory: args() then need no y.
  bool keeps_floats() const { return codes_ && info_ != nullptr; }

  // Rows and outputs of weight `segment` that a worker has finished.
  struct Part {
    int segment = 0;
    int64_t m_begin = 0, m_end = 0, n_begin = 0, n_end = 0;
    const float* y = nullptr;  // [m_begin.., n_begin..] when keeps_floats()
    int64_t ldy = 0;
    const uint8_t* codes = nullptr;  // instead of y: finished, for write_codes()
  };
  // The block-sparse kernel of these weights if X and Y can lie as columns.h has it; null: they cannot.
  static Result<const kernels::BsrU8S8Kernel*> columns_kernel(PackedCache& cache, SparseMode mode, int64_t m,
                                                              std::span<const Int8Constant> weights);
  bool takes_columns() const { return info_ != nullptr && info_->kernel->run_columns != nullptr; }

  // X as the kernel wants it, in scratch; null for kernels that read rows. From rows of codes, or from columns of
  // floats.
  const uint8_t* pack(ThreadPool& pool, const uint8_t* x, int64_t ldx, void* scratch) const;
  const uint8_t* quantise(ThreadPool& pool, const float* x, kernels::QuantParams params, void* scratch) const;

  // slabs: of pack() or quantise(). args(segment): everything of GemmU8S8Args but w and w_sum. codes: of Y, where it
  // is 8-bit. done(part) is called for each finished part.
  template <class MakeArgs, class Done>
  void run(ThreadPool& pool, const uint8_t* slabs, void* scratch, const MakeArgs& args, kernels::QuantParams codes,
           const Done& done) const;
  // The codes of a part at y[0, 0]; flip: 0x80 where Y is s8. Clamped to the rows and outputs there are by the caller.
  void write_codes(const Part& part, uint8_t flip, uint8_t* y, int64_t ldy) const {
    info_->kernel->rows_of_columns(part.codes, part.n_end - part.n_begin, part.m_end - part.m_begin, flip, y, ldy);
  }
  // The only weight, Y as columns; y.range becomes min(0, smallest), max(0, largest).
  void run_columns(ThreadPool& pool, const uint8_t* slabs, const kernels::GemmU8S8Args& args,
                   const kernels::BsrColumns& y, void* scratch) const;

 private:
  struct Weight {
    PackedBlob blob;
    kernels::BsrWeights packed;      // of block-sparse products
    const int8_t* gemv = nullptr;    // of compressed weights
    int64_t bytes = 0;
    const int32_t* sums = nullptr;   // [units * unit_rows]
    const float* scale = nullptr;
  };
  struct Gemv;
  struct Form;  // what was chosen

  static Result<std::optional<Form>> choose_form(PackedCache& cache, SparseMode mode, int64_t m,
                                                 std::span<const Int8Constant> weights,
                                                 std::vector<Rejection>& rejected);
  static std::optional<Gemv> cheapest_gemv(const SparseLayer& layer, std::vector<Rejection>& why_not);
  // Which form of a kernel that has two the weights get, for explain.
  std::string pairs_detail() const;
  Status pack_blocks(PackedCache& cache, const Int8Constant& weight);
  Status pack_gemv(PackedCache& cache, const Int8Constant& weight, kernels::GemvFormat format);
  void split(int workers);
  int64_t slab_bytes() const;
  // Bytes of a worker: the kernel's, the floats of a part, the range of its Y.
  int64_t worker_bytes() const;

  // One of the two is set.
  const kernels::KernelInfo<kernels::BsrU8S8Kernel>* info_ = nullptr;
  const kernels::KernelInfo<kernels::BsrGemvU8S8Kernel>* gemv_ = nullptr;
  bool codes_ = false;
  int64_t m_ = 0, k_ = 0;
  double stored_ = 0;
  std::vector<Weight> weights_;
  std::vector<kernels::BsrParts> parts_;         // of each weight
  std::vector<kernels::GemvSplit> gemv_parts_;
};

template <class MakeArgs, class Done>
void SparseInt8::run(ThreadPool& pool, const uint8_t* slabs, void* scratch, const MakeArgs& args,
                     kernels::QuantParams codes, const Done& done) const {
  char* own = static_cast<char*>(scratch) + kernels::align_scratch(slab_bytes());
  const auto parts_of = [&](size_t s) { return info_ != nullptr ? parts_[s].count() : gemv_parts_[s].parts; };
  const auto run_blocks = [&](size_t s, int64_t p, int worker) {
    const kernels::BsrU8S8Kernel& kernel = *info_->kernel;
    kernels::BsrU8S8Args part = {args(static_cast<int>(s)), weights_[s].packed, slabs};
    part.gemm.w_sum = weights_[s].sums;
    const kernels::BsrRange range = parts_[s].range(p);
    const int64_t tokens = kernel.layout.slab_tokens, outputs = kernel.layout.unit_rows;
    Part made = {static_cast<int>(s), range.slab_begin * tokens, range.slab_end * tokens, range.unit_begin * outputs,
                 range.unit_end * outputs};
    char* memory = own + worker_bytes() * worker;
    const bool one_scale = part.gemm.x_scale_stride == 0 && part.gemm.epilogue.residual == nullptr;
    if (codes_ && one_scale && kernel.rows_of_columns != nullptr) {
      made.codes = reinterpret_cast<const uint8_t*>(memory + kernels::align_scratch(kernel.scratch_bytes));
      // As below: the kernel adds where the part begins.
      const int64_t before = (range.slab_begin * part.gemm.n + made.n_begin) * Columns::kRows;
      const auto at = reinterpret_cast<uintptr_t>(made.codes) - static_cast<uintptr_t>(before);
      const kernels::BsrColumns y = {.codes = reinterpret_cast<uint8_t*>(at), .scale = codes.scale,
                                     .zero_point = codes.zero_point};
      kernel.run_columns(part, y, range, memory);
      return done(made);
    }
    if (codes_) {
      made.y = reinterpret_cast<const float*>(memory + kernels::align_scratch(kernel.scratch_bytes));
      made.ldy = made.n_end - made.n_begin;
      // The kernel adds m * ldy + n of the whole result; as a number, because no object begins there.
      const int64_t before = (made.m_begin * made.ldy + made.n_begin) * 4;
      part.gemm.y = reinterpret_cast<float*>(reinterpret_cast<uintptr_t>(made.y) - static_cast<uintptr_t>(before));
      part.gemm.ldy = made.ldy;
    }
    kernel.run(part, range, memory);
    done(made);
  };
  const auto run_gemv = [&](size_t s, int64_t p) {
    const kernels::TileRange tiles = {0, m_, gemv_parts_[s].begin(p), gemv_parts_[s].begin(p + 1)};
    if (tiles.panel_begin >= tiles.panel_end) return;
    kernels::GemmU8S8Args part = args(static_cast<int>(s));
    part.w = weights_[s].gemv;
    gemv_->kernel->run(part, tiles);
    done(Part{static_cast<int>(s), 0, m_, tiles.panel_begin * kernels::kGemvPanel,
              tiles.panel_end * kernels::kGemvPanel});
  };
  int64_t total = 0;
  for (size_t s = 0; s < weights_.size(); ++s) total += parts_of(s);
  pool.parallel_for(total, 1, [&](int64_t begin, int64_t end, int worker) {
    int64_t first = 0;
    for (size_t s = 0; s < weights_.size(); first += parts_of(s), ++s) {
      for (int64_t p = std::max(begin, first); p < std::min(end, first + parts_of(s)); ++p) {
        if (info_ != nullptr) run_blocks(s, p - first, worker);
        else run_gemv(s, p - first);
      }
    }
  });
}

}  // namespace sprun::graph
