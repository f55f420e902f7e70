#include "kernels/sparse_ffn/float_impl.h"

namespace sprun::kernels {

extern constinit const SparseFfnKernel sparse_ffn_bf16_avx2 = sparse_ffn::kBf16<simd::Avx2>;

}  // namespace sprun::kernels
