#include "kernels/topk/topk_impl.h"

namespace sprun::kernels {

extern constinit const TopKKernel topk_avx2 = topk::kTopK<simd::Avx2>;

}  // namespace sprun::kernels
