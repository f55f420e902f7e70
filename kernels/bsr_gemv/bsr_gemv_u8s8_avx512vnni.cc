#include "kernels/bsr_gemv/bsr_gemv_u8s8_impl.h"

namespace sprun::kernels {

extern constinit const BsrGemvU8S8Kernel bsr_gemv_u8s8_avx512vnni =
    gemv::kBsrGemvU8S8<simd::Avx512Vnni>;

}  // namespace sprun::kernels
