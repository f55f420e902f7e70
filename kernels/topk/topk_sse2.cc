#include "kernels/topk/topk_impl.h"

namespace sprun::kernels {

extern constinit const TopKKernel topk_sse2 = topk::kTopK<simd::Sse2>;

}  // namespace sprun::kernels
