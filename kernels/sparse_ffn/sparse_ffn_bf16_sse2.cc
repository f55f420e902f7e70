#include "kernels/sparse_ffn/float_impl.h"

namespace sprun::kernels {

extern constinit const SparseFfnKernel sparse_ffn_bf16_sse2 = sparse_ffn::kBf16<simd::Sse2>;

}  // namespace sprun::kernels
