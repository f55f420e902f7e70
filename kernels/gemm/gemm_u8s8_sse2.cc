#include "kernels/gemm/gemm_u8s8_impl.h"

namespace sprun::kernels {

extern constinit const GemmU8S8Kernel gemm_u8s8_sse2 = gemm::kGemmU8S8<simd::Sse2>;

}  // namespace sprun::kernels
