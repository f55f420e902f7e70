#include "kernels/conv/conv_f32_impl.h"

namespace sprun::kernels {

extern constinit const ConvKernel conv_f32_avx512 = conv::kConvF32<simd::Avx512>;

}  // namespace sprun::kernels
