#include "kernels/amx/tile_emu.h"
#include "kernels/bsr_spmm/bsr_bf16_amx_impl.h"

namespace sprun::kernels {

extern constinit const BsrBf16Kernel bsr_spmm_16x4_bf16_amxemu =
    bsr::make_amx_bf16<simd::Sse2, amx::TileEmu>();

}  // namespace sprun::kernels
