#include "kernels/sparse_ffn/float_impl.h"

namespace sprun::kernels {

extern constinit const SparseFfnKernel sparse_ffn_f32_sse2 = sparse_ffn::kF32<simd::Sse2>;

}  // namespace sprun::kernels
