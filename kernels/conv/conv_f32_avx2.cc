#include "kernels/conv/conv_f32_impl.h"

namespace sprun::kernels {

extern constinit const ConvKernel conv_f32_avx2 = conv::kConvF32<simd::Avx2>;

}  // namespace sprun::kernels
