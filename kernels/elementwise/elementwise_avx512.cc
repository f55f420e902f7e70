#include "kernels/elementwise/elementwise_impl.h"

namespace sprun::kernels {

extern constinit const ElementwiseKernel elementwise_f32_avx512 =
    elementwise::kElementwise<simd::Avx512>;

}  // namespace sprun::kernels
