// What a product with few rows over compressed weights is expected to cost, in the unit of
// kernels/bsr_spmm/cost.h: expanding the weights, or reading them, whatever takes longer.
#pragma once

#include "kernels/bsr_gemv/bsr_gemv.h"

namespace sprun::kernels {

// `stored` is the number of weights (kBitmap, kOneOfFour) or of 1x4 blocks times 4 that are stored,
// as a part of N * K. Constants: the table of bsr_gemv.h.
double gemv_u8s8_cost(Isa isa, GemvFormat format, int64_t m, int64_t n, int64_t k, double stored);

}  // namespace sprun::kernels
