#include "kernels/bsr_spmm/bsr_u8s8_impl.h"
#include "kernels/bsr_spmm/outputs_u8s8_impl.h"

namespace sprun::kernels {

using simd::Avx512Vnni;

extern constinit const BsrU8S8Kernel bsr_spmm_4x1_u8s8_avx512vnni =
    bsr::make_u8s8<Avx512Vnni, kBsr4x1U8S8>(1);
extern constinit const BsrU8S8Kernel bsr_spmm_1x4_u8s8_avx512vnni =
    bsr::make_u8s8<Avx512Vnni, kBsr1x4U8S8>(1);
extern constinit const BsrU8S8Kernel bsr_spmm_4x4_u8s8_avx512vnni =
    bsr::make_u8s8<Avx512Vnni, kBsr4x4U8S8>(1);
extern constinit const BsrU8S8Kernel bsr_spmm_16x4_u8s8_avx512vnni =
    bsr::make_u8s8<Avx512Vnni, kBsr16x4U8S8>(24);
extern constinit const BsrU8S8Kernel bsr_spmm_16x4_rows_u8s8_avx512vnni = bsr::make_outputs_u8s8<Avx512Vnni>();

}  // namespace sprun::kernels
