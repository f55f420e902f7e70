#include "kernels/softmax/softmax_impl.h"

namespace sprun::kernels {

extern constinit const SoftmaxKernel softmax_f32_avx512 = softmax::kSoftmax<simd::Avx512>;

}  // namespace sprun::kernels
