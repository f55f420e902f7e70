#include "kernels/amx/tile_emu.h"
#include "kernels/bsr_spmm/bsr_u8s8_amx_impl.h"

namespace sprun::kernels {

extern constinit const BsrU8S8Kernel bsr_spmm_16x4_u8s8_amxemu =
    bsr::make_amx_u8s8<simd::Sse2, amx::TileEmu>();

}  // namespace sprun::kernels
