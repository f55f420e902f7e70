#include "kernels/gemm/gemm_f32_impl.h"

namespace sprun::kernels {

extern constinit const GemmF32Kernel gemm_f32_avx512 = gemm::kGemmF32<simd::Avx512>;

}  // namespace sprun::kernels
