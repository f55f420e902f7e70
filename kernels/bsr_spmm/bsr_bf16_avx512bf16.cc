#include "kernels/bsr_spmm/bsr_bf16_impl.h"

namespace sprun::kernels {

using simd::Avx512Bf16;

extern constinit const BsrBf16Kernel bsr_spmm_16x4_bf16_avx512bf16 =
    bsr::make_bf16<Avx512Bf16, kBsr16x4Bf16>(1);
extern constinit const BsrBf16Kernel bsr_spmm_16x1_bf16_avx512bf16 =
    bsr::make_bf16<Avx512Bf16, kBsr16x1Bf16>(1);
extern constinit const BsrBf16Kernel bsr_spmm_4x1_bf16_avx512bf16 =
    bsr::make_bf16<Avx512Bf16, kBsr4x1Bf16>(1);

}  // namespace sprun::kernels
