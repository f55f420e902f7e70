// What lists of active neurons, one for each token, are expected to cost against dense products.
//
// Counted in multiply-adds of the dense product, which does so many a second that they are a unit
// of time. Fitted on Zen 5, one thread: int8 (VNNI) to the three layers of sprun_sparse_ffn_bench
// with 24 to 512 tokens, estimate and measurement within 0.1; f32 (AVX-512) to layers of generated
// models, 64 to 512 tokens: 1.17 to 1.42 for ReLU 768 to 3072, 1.6 to 2.1 for Spark 1152 to 6912.
// bf16 has not been measured.
#pragma once

#include "kernels/sparse_ffn/sparse_ffn.h"

namespace sprun::kernels {

// Tokens from which run_sparse_ffn() can make lists.
inline constexpr int64_t kFfnListTokens = 9;

// How many times as fast as dense layers the whole layer is with lists, at `density` active
// neurons; 0 where nobody has measured it.
double token_list_speedup(const SparseFfnShape& shape, int64_t tokens, double density);

}  // namespace sprun::kernels
