#include "kernels/amx/tile_hw.h"
#include "kernels/bsr_spmm/bsr_bf16_amx_impl.h"

namespace sprun::kernels {

extern constinit const BsrBf16Kernel bsr_spmm_16x4_bf16_amxbf16 =
    bsr::make_amx_bf16<simd::Avx512Bf16, amx::TileHw>();

}  // namespace sprun::kernels
