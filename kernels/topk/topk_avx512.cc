#include "kernels/topk/topk_impl.h"

namespace sprun::kernels {

extern constinit const TopKKernel topk_avx512 = topk::kTopK<simd::Avx512>;

}  // namespace sprun::kernels
