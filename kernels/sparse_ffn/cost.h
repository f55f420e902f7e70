// What lists of active neurons, one for each token, are expected to cost against dense products.
//
// Counted in multiply-adds of the dense product, which does so many a second that they are a unit
// of time. Fitted to sprun_sparse_ffn_bench with 24 to 512 tokens (int8, VNNI, Zen 5, one thread):
// estimate against measurement within 0.1 for its three int8 layers.
#pragma once

#include "kernels/sparse_ffn/sparse_ffn.h"

namespace sprun::kernels {

// Tokens from which run_sparse_ffn() can make lists.
inline constexpr int64_t kFfnListTokens = 9;

// How many times as fast as dense layers the whole layer is with lists, at `density` active
// neurons; 0 where nobody has measured it.
double token_list_speedup(const SparseFfnShape& shape, int64_t tokens, double density);

}  // namespace sprun::kernels
