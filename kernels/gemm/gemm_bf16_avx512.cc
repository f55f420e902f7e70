#include "kernels/gemm/gemm_bf16_impl.h"

namespace sprun::kernels {

extern constinit const GemmBf16Kernel gemm_bf16_avx512 = gemm::kGemmBf16<simd::Avx512>;

}  // namespace sprun::kernels
