// Products with 2-, 4- and 8-bit block-quantised weights, as com.microsoft MatMulNBits stores them.
//
//   Y[m, n] = sum_k X[m, k] * (q(n, k) - zero(n, block)) * scale(n, block) + bias[n]
//
//   const NbitsKernel& kernel = *select(nbits_kernels(), available_isas()).kernel;
//   kernel.arrange(weight, x, arranged);                       // once per row of X
//   kernel.gemv({.w = weight, .x = arranged, ...}, 0, weight.n);
//
// With a list of outputs gemv() computes and reads only those.
// Weights are used where they lie: no packing, one pass over the file's bytes.
// Regime:  bandwidth-bound: gemv() for a few rows. For many rows pack() one panel at a time for kernels/gemm.
// Numeric: reassociated: sums inside a block come first, then the scale.
// Threads: none; ranges of n are independent.   Errors: none; preconditions are the caller's.
// Source:  com.microsoft MatMulNBits, version 1.
#pragma once

#include <span>

#include "kernels/nbits/nbits_types.h"
#include "kernels/registry.h"

namespace sprun::kernels {

std::span<const KernelInfo<NbitsKernel>> nbits_kernels();

}  // namespace sprun::kernels
