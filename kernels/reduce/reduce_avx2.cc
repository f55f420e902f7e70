#include "kernels/reduce/reduce_impl.h"

namespace sprun::kernels {

extern constinit const ReduceKernel reduce_f32_avx2 = reduce::kReduce<simd::Avx2>;

}  // namespace sprun::kernels
