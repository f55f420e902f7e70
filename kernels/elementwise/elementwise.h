// Elementwise float kernels: maps (map_ops.def), arithmetic with a scalar on either side, biased
// Gelu and conversions to and from 16-bit floats.
//
//   best_elementwise().map(MapOp::kTanh)(x, y, n, 0, 0);
//
// Formulas and aliasing: elementwise_types.h and map_ops.def. Accuracy: as map_ops.def says per
// operation; arithmetic and conversions round once. NaN stays NaN; infinities follow IEEE
// arithmetic. Regime: bandwidth-bound, but for exp and its kin, which are compute-bound inside the
// cache. Threads: none; callers cut the arrays.   Errors: none.   n may be 0.
#pragma once

#include <span>

#include "kernels/elementwise/elementwise_types.h"
#include "kernels/registry.h"

namespace sprun::kernels {

std::span<const KernelInfo<ElementwiseKernel>> elementwise_kernels();

// The variant for this process, chosen on first use.
const KernelInfo<ElementwiseKernel>& best_elementwise();

inline MapF32Fn* map_f32(MapOp op) { return best_elementwise().kernel->map[static_cast<int>(op)]; }
inline BinaryF32Fn* binary_f32(BinaryOp op) {
  return best_elementwise().kernel->binary[static_cast<int>(op)];
}

}  // namespace sprun::kernels
