#include "kernels/softmax/softmax_impl.h"

namespace sprun::kernels {

extern constinit const SoftmaxKernel softmax_f32_sse2 = softmax::kSoftmax<simd::Sse2>;

}  // namespace sprun::kernels
