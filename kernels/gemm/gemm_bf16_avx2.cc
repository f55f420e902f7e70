#include "kernels/gemm/gemm_bf16_impl.h"

namespace sprun::kernels {

extern constinit const GemmBf16Kernel gemm_bf16_avx2 = gemm::kGemmBf16<simd::Avx2>;

}  // namespace sprun::kernels
