#include "kernels/softmax/softmax_impl.h"

namespace sprun::kernels {

extern constinit const SoftmaxKernel softmax_f32_avx2 = softmax::kSoftmax<simd::Avx2>;

}  // namespace sprun::kernels
