#include "kernels/gemm/gemm_narrow_impl.h"

namespace sprun::kernels {

extern constinit const GemmNarrowKernel gemm_f32s8_avx512 = gemm::kGemmNarrow<simd::Avx512, gemm::NarrowS8>;
extern constinit const GemmNarrowKernel gemm_f32f16_avx512 = gemm::kGemmNarrow<simd::Avx512, gemm::NarrowF16>;
extern constinit const GemmNarrowKernel gemm_f32bf16_avx512 = gemm::kGemmNarrow<simd::Avx512, gemm::NarrowBf16>;

}  // namespace sprun::kernels
