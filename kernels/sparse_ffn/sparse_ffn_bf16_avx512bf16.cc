#include "kernels/sparse_ffn/float_impl.h"

namespace sprun::kernels {

extern constinit const SparseFfnKernel sparse_ffn_bf16_avx512bf16 =
    sparse_ffn::kBf16<simd::Avx512Bf16>;

}  // namespace sprun::kernels
