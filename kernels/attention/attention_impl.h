// The kernel table entry of one instruction set.
#pragma once

#include "kernels/attention/attention_block_impl.h"
#include "kernels/attention/attention_decode_impl.h"

namespace sprun::kernels::attn {

template <class A>
inline constexpr AttentionKernel kAttention = {
    .lanes = F32<A>::kLanes,
    .max_rows = F32<A>::kLanes * Tile<A>::kVecs,
    .run = run_block<A>,
    .scratch_floats = block_scratch_floats<A>,
    .load = nullptr,
    .decode_rows = kDecodeRows,
    .decode = run_decode<A>,
    .decode_scratch_floats = decode_scratch_floats<A>,
};

}  // namespace sprun::kernels::attn
