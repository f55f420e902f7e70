#include "kernels/bsr_spmm/bsr_f32_impl.h"

namespace sprun::kernels {

using simd::Avx512;

extern constinit const BsrF32Kernel bsr_spmm_16x4_f32_avx512 =
    bsr::make_f32<Avx512, kBsr16x4F32>(1);
extern constinit const BsrF32Kernel bsr_spmm_4x1_f32_avx512 =
    bsr::make_f32<Avx512, kBsr4x1F32>(1);
extern constinit const BsrF32Kernel bsr_spmm_1x1_f32_avx512 =
    bsr::make_f32<Avx512, kBsr1x1F32>(1);

}  // namespace sprun::kernels
