// Reductions of float rows to one number each (reduce_types.h).
//
//   best_reduce().kernel->sum(x, rows, n, n, y);
//
// Accuracy: sums run in blocks of 1024 elements in float, spread over at least 16 lanes, and blocks
// add up in double: the error stays below 70 eps times the sum of |terms| for any n. Max and Min
// are exact. Regime: bandwidth-bound.   Threads: none; callers cut the rows.   Errors: none.
#pragma once

#include <span>

#include "kernels/reduce/reduce_types.h"
#include "kernels/registry.h"

namespace sprun::kernels {

std::span<const KernelInfo<ReduceKernel>> reduce_kernels();

// The variant for this process, chosen on first use.
const KernelInfo<ReduceKernel>& best_reduce();

}  // namespace sprun::kernels
