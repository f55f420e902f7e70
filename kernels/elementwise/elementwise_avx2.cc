#include "kernels/elementwise/elementwise_impl.h"

namespace sprun::kernels {

extern constinit const ElementwiseKernel elementwise_f32_avx2 =
    elementwise::kElementwise<simd::Avx2>;

}  // namespace sprun::kernels
