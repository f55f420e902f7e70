#include "kernels/elementwise/elementwise_impl.h"

namespace sprun::kernels {

extern constinit const ElementwiseKernel elementwise_f32_sse2 =
    elementwise::kElementwise<simd::Sse2>;

}  // namespace sprun::kernels
