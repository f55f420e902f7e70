#include "kernels/bsr_gemv/bsr_gemv_u8s8_impl.h"

namespace sprun::kernels {

extern constinit const BsrGemvU8S8Kernel bsr_gemv_u8s8_avx512vbmi2 =
    gemv::kBsrGemvU8S8<simd::Avx512Vbmi2>;

}  // namespace sprun::kernels
