// Block-sparse products: choosing a kernel, packing, and running it over several workers.
//
//   const auto* info = select_bsr(bsr_u8s8_kernels(), kBlock4x1, m, available_isas());
//   ... bsr_size() and bsr_pack() with info->kernel->layout (pack.h), once, at load ...
//   const BsrParts parts = bsr_parts(weights, num_slabs(layout, m), workers);    // once per plan
//   pack_x_slabs(kernel, x, ldx, m, k, slabs, parallel_for);
//   run_bsr(kernel, args, parts, scratch, parallel_for);
//
// parallel_for: as in kernels/gemm/gemm.h. scratch: align_scratch(kernel.scratch_bytes) per worker.
// Regime: compute-bound; the *_rows kernels also serve few rows, where weight bytes count.
// Nothing here but bsr_parts() allocates; nothing locks or fails.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/bsr_spmm/bsr_spmm_types.h"
#include "kernels/bsr_spmm/pack.h"
#include "kernels/gemm/gemm.h"
#include "kernels/registry.h"

namespace sprun::kernels {

std::span<const KernelInfo<BsrU8S8Kernel>> bsr_u8s8_kernels();
std::span<const KernelInfo<BsrF32Kernel>> bsr_f32_kernels();
std::span<const KernelInfo<BsrBf16Kernel>> bsr_bf16_kernels();
// Kernels that only tests run: AMX tiles emulated in plain C++.
std::span<const KernelInfo<BsrU8S8Kernel>> bsr_u8s8_test_kernels();
std::span<const KernelInfo<BsrBf16Kernel>> bsr_bf16_test_kernels();

// First entry for the pattern that may run here and is worth taking for m rows; null when the list
// has no entry for the pattern. Better entries passed over are appended to `why_not`, if given.
template <class Kernel>
const KernelInfo<Kernel>* select_bsr(std::span<const KernelInfo<Kernel>> list, BlockShape block,
                                     int64_t m, IsaSet available,
                                     std::vector<Rejection>* why_not = nullptr) {
  for (const KernelInfo<Kernel>& info : list) {
    if (info.kernel->layout.block != block) continue;
    const bool can_run = available.contains(info.isa);
    if (can_run && m >= info.kernel->min_m) return &info;
    if (why_not == nullptr) continue;
    why_not->push_back({std::string(info.name),
                        !can_run ? unavailable_reason(info.isa, available)
                                 : "fewer than " + std::to_string(info.kernel->min_m) + " rows"});
  }
  return nullptr;
}

// A product cut into parts of about equal work, that is of stored groups.
struct BsrParts {
  std::vector<int64_t> unit_begin;  // part p has units [unit_begin[p], unit_begin[p + 1])
  int64_t slabs = 0, slab_parts = 1;
  int64_t count() const { return (static_cast<int64_t>(unit_begin.size()) - 1) * slab_parts; }
  BsrRange range(int64_t part) const {
    const auto unit = static_cast<size_t>(part / slab_parts);
    const int64_t s = part % slab_parts;
    return {s * slabs / slab_parts, (s + 1) * slabs / slab_parts, unit_begin[unit],
            unit_begin[unit + 1]};
  }
};
BsrParts bsr_parts(const BsrWeights& w, int64_t slabs, int workers);

// Copies X [m, k] into all slabs at `out` (num_slabs * x_slab_elements).
template <class Kernel, class X, class Slab, class ParallelFor>
void pack_x_slabs(const Kernel& kernel, const X* x, int64_t ldx, int64_t m, int64_t k, Slab* out,
                  const ParallelFor& parallel_for) {
  const int64_t slab = x_slab_elements(kernel.layout, k);
  constexpr int64_t kElementsPerTask = 32 * 1024;
  parallel_for(num_slabs(kernel.layout, m), kElementsPerTask / (slab + 1) + 1,
               [&](int64_t begin, int64_t end, int) {
                 for (int64_t s = begin; s < end; ++s) kernel.pack_x(x, ldx, m, k, s, out + s * slab);
               });
}

// Y of all parts.
template <class Kernel, class Args, class ParallelFor>
void run_bsr(const Kernel& kernel, const Args& args, const BsrParts& parts, void* scratch,
             const ParallelFor& parallel_for) {
  char* base = static_cast<char*>(scratch);
  parallel_for(parts.count(), 1, [&](int64_t begin, int64_t end, int worker) {
    void* own = base + align_scratch(kernel.scratch_bytes) * worker;
    for (int64_t p = begin; p < end; ++p) kernel.run(args, parts.range(p), own);
  });
}

}  // namespace sprun::kernels
