#include "kernels/gemm/gemm_narrow_impl.h"

namespace sprun::kernels {

extern constinit const GemmNarrowKernel gemm_f32s8_avx2 = gemm::kGemmNarrow<simd::Avx2, simd::StoredS8>;
extern constinit const GemmNarrowKernel gemm_f32f16_avx2 = gemm::kGemmNarrow<simd::Avx2, simd::StoredF16>;
extern constinit const GemmNarrowKernel gemm_f32bf16_avx2 = gemm::kGemmNarrow<simd::Avx2, simd::StoredBf16>;

}  // namespace sprun::kernels
