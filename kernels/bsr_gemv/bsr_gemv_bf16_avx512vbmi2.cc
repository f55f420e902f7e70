#include "kernels/bsr_gemv/bsr_gemv_bf16_impl.h"

namespace sprun::kernels {

extern constinit const BsrGemvBf16Kernel bsr_gemv_bf16_avx512vbmi2 =
    gemv::kBsrGemvBf16<simd::Avx512Vbmi2>;

}  // namespace sprun::kernels
