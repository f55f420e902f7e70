#include "kernels/bsr_spmm/bsr_bf16_impl.h"

namespace sprun::kernels {

using simd::Sse2;

extern constinit const BsrBf16Kernel bsr_spmm_16x4_bf16_sse2 =
    bsr::make_bf16<Sse2, kBsr16x4Bf16>(1);
extern constinit const BsrBf16Kernel bsr_spmm_16x1_bf16_sse2 =
    bsr::make_bf16<Sse2, kBsr16x1Bf16>(1);
extern constinit const BsrBf16Kernel bsr_spmm_4x1_bf16_sse2 =
    bsr::make_bf16<Sse2, kBsr4x1Bf16>(1);

}  // namespace sprun::kernels
