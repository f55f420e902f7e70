#include "kernels/gemm/gemm_bf16_impl.h"

namespace sprun::kernels {

extern constinit const GemmBf16Kernel gemm_bf16_sse2 = gemm::kGemmBf16<simd::Sse2>;

}  // namespace sprun::kernels
