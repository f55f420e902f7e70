// The kernel table entry of one instruction set and type of K and V in memory.
#pragma once

#include "kernels/attention/attention_block_impl.h"
#include "kernels/attention/attention_decode_impl.h"
#include "kernels/attention/attention_merge_impl.h"

namespace sprun::kernels::attn {

template <class A, class T>
inline constexpr AttentionKernel kAttention = {
    .lanes = F32<A>::kLanes,
    .max_rows = F32<A>::kLanes * Tile<A>::kVecs,
    .run = run_block<A, T>,
    .scratch_floats = block_scratch_floats<A, T>,
    .load = nullptr,
    .decode_rows = kDecodeRows<A, T>,
    .decode = run_decode<A, T>,
    .decode_scratch_floats = decode_scratch_floats<A, T>,
    .merge = merge_parts<A>,
};

}  // namespace sprun::kernels::attn
