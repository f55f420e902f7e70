#include "kernels/gemm/gemm_f32_impl.h"

namespace sprun::kernels {

extern constinit const GemmF32Kernel gemm_f32_sse2 = gemm::kGemmF32<simd::Sse2>;

}  // namespace sprun::kernels
