#include "kernels/norm/norm_impl.h"

namespace sprun::kernels {

extern constinit const RowNormKernel row_norm_sse2 = norm::kRowNorm<simd::Sse2>;

}  // namespace sprun::kernels
