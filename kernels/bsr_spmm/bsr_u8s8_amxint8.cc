#include "kernels/amx/tile_hw.h"
#include "kernels/bsr_spmm/bsr_u8s8_amx_impl.h"

namespace sprun::kernels {

extern constinit const BsrU8S8Kernel bsr_spmm_16x4_u8s8_amxint8 =
    bsr::make_amx_u8s8<simd::Avx512Vnni, amx::TileHw>();

}  // namespace sprun::kernels
