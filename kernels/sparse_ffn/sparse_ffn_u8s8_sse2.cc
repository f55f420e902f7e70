#include "kernels/sparse_ffn/u8s8_impl.h"

namespace sprun::kernels {

extern constinit const SparseFfnKernel sparse_ffn_u8s8_sse2 = sparse_ffn::kU8S8<simd::Sse2>;

}  // namespace sprun::kernels
