#include "kernels/reduce/reduce_impl.h"

namespace sprun::kernels {

extern constinit const ReduceKernel reduce_f32_sse2 = reduce::kReduce<simd::Sse2>;

}  // namespace sprun::kernels
