// Row normalisation: choosing a kernel and running it over several workers.
//
//   const RowNormKernel& kernel = *select(row_norm_kernels(), available_isas()).kernel;
//   layer_norm_rows(kernel, {.x = x, .gamma = g, .beta = b, .y = y, .n = 768, .epsilon = 1e-5F},
//   rows, parallel_for);
//
// parallel_for as in kernels/gemm/gemm.h. Nothing here allocates, locks or fails. Formulas:
// norm_types.h.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/norm/norm_types.h"
#include "kernels/registry.h"

namespace sprun::kernels {

std::span<const KernelInfo<RowNormKernel>> row_norm_kernels();

// Rows that are worth a task: about 4 us of one core.
constexpr int64_t row_norm_grain(int64_t n) { return 32 * 1024 / (n + 1) + 1; }

template <class ParallelFor>
void layer_norm_rows(const RowNormKernel& kernel, const RowNormArgs& args, int64_t rows,
                     const ParallelFor& parallel_for) {
  parallel_for(rows, row_norm_grain(args.n),
               [&](int64_t begin, int64_t end, int) { kernel.layer_norm(args, begin, end); });
}

template <class ParallelFor>
void rms_norm_rows(const RowNormKernel& kernel, const RowNormArgs& args, int64_t rows,
                   const ParallelFor& parallel_for) {
  parallel_for(rows, row_norm_grain(args.n),
               [&](int64_t begin, int64_t end, int) { kernel.rms_norm(args, begin, end); });
}

}  // namespace sprun::kernels
