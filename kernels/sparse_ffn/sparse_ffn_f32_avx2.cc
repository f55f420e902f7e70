#include "kernels/sparse_ffn/float_impl.h"

namespace sprun::kernels {

extern constinit const SparseFfnKernel sparse_ffn_f32_avx2 = sparse_ffn::kF32<simd::Avx2>;

}  // namespace sprun::kernels
