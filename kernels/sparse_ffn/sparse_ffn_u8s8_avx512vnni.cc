#include "kernels/sparse_ffn/u8s8_impl.h"

namespace sprun::kernels {

extern constinit const SparseFfnKernel sparse_ffn_u8s8_avx512vnni =
    sparse_ffn::kU8S8<simd::Avx512Vnni>;

}  // namespace sprun::kernels
