#include "kernels/gemm/gemm_u8s8_impl.h"

namespace sprun::kernels {

extern constinit const GemmU8S8Kernel gemm_u8s8_avx2 = gemm::kGemmU8S8<simd::Avx2>;

}  // namespace sprun::kernels
