// Softmax and log-softmax of float rows (softmax_types.h has the formulas).
//
//   best_softmax().kernel->softmax(x, y, rows, n, n);
//
// Accuracy: relative error of each output below 8 eps + n eps / 8. A row that holds NaN or +inf, or
// only -inf, becomes NaN, as in NumPy. Regime: compute-bound (one exp per element) while a row fits
// the cache. Threads: none; callers cut the rows.   Errors: none.
#pragma once

#include <span>

#include "kernels/registry.h"
#include "kernels/softmax/softmax_types.h"

namespace sprun::kernels {

std::span<const KernelInfo<SoftmaxKernel>> softmax_kernels();

// The variant for this process, chosen on first use.
const KernelInfo<SoftmaxKernel>& best_softmax();

}  // namespace sprun::kernels
