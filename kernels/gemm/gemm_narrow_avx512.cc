#include "kernels/gemm/gemm_narrow_impl.h"

namespace sprun::kernels {

extern constinit const GemmNarrowKernel gemm_f32s8_avx512 = gemm::kGemmNarrow<simd::Avx512, simd::StoredS8>;
extern constinit const GemmNarrowKernel gemm_f32f16_avx512 = gemm::kGemmNarrow<simd::Avx512, simd::StoredF16>;
extern constinit const GemmNarrowKernel gemm_f32bf16_avx512 = gemm::kGemmNarrow<simd::Avx512, simd::StoredBf16>;

}  // namespace sprun::kernels
