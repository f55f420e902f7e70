#include "kernels/norm/norm_impl.h"

namespace sprun::kernels {

extern constinit const RowNormKernel row_norm_avx512 = norm::kRowNorm<simd::Avx512>;

}  // namespace sprun::kernels
