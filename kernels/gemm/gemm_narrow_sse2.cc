#include "kernels/gemm/gemm_narrow_impl.h"

namespace sprun::kernels {

extern constinit const GemmNarrowKernel gemm_f32s8_sse2 = gemm::kGemmNarrow<simd::Sse2, simd::StoredS8>;
// No f16: without an instruction that widens it, f32 weights are faster.
extern constinit const GemmNarrowKernel gemm_f32bf16_sse2 = gemm::kGemmNarrow<simd::Sse2, simd::StoredBf16>;

}  // namespace sprun::kernels
