#include "kernels/reduce/reduce_impl.h"

namespace sprun::kernels {

extern constinit const ReduceKernel reduce_f32_avx512 = reduce::kReduce<simd::Avx512>;

}  // namespace sprun::kernels
