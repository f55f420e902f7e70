#include "kernels/norm/norm_impl.h"

namespace sprun::kernels {

extern constinit const RowNormKernel row_norm_avx2 = norm::kRowNorm<simd::Avx2>;

}  // namespace sprun::kernels
