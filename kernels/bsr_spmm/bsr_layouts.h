// The packed layouts of the block patterns: one fact for kernels, references and packers.
#pragma once

#include "kernels/bsr_spmm/bsr_spmm_types.h"

namespace sprun::kernels {

// u8 x s8. 1x4 loads a line of X for one multiplication, so X has to come from the nearest cache:
// 768 inputs of 64 tokens are 48 KiB. The other patterns reuse a line for four or more outputs.
inline constexpr BsrLayout kBsr4x1U8S8 = {kBlock4x1, 16, 4, 64, XLayout::kColumnSlabs, 0};
inline constexpr BsrLayout kBsr4x4U8S8 = {kBlock4x4, 16, 1, 64, XLayout::kGroupSlabs, 0};
inline constexpr BsrLayout kBsr16x4U8S8 = {kBlock16x4, 16, 1, 32, XLayout::kGroupSlabs, 0};
inline constexpr BsrLayout kBsr16x4RowsU8S8 = {kBlock16x4, 16, 1, 16, XLayout::kRowMajor, 0};
// AMX: two strips of outputs, two times 16 tokens; 16 blocks are the rows of one weight tile.
inline constexpr BsrLayout kBsr16x4AmxU8S8 = {kBlock16x4, 32, 1, 32, XLayout::kGroupSlabs, 0, 16};
inline constexpr BsrLayout kBsr1x4U8S8 = {kBlock1x4, 64, 1, 64, XLayout::kGroupSlabs, 768};

// f32. Without a pattern a line of X serves one multiplication: 128 inputs of 64 tokens are 32 KiB,
// which the 64 outputs of a unit share.
inline constexpr BsrLayout kBsr4x1F32 = {kBlock4x1, 16, 1, 64, XLayout::kGroupSlabs, 0};
inline constexpr BsrLayout kBsr16x4F32 = {kBlock16x4, 16, 1, 64, XLayout::kGroupSlabs, 0};
inline constexpr BsrLayout kBsr1x1F32 = {kBlock1x1, 64, 1, 64, XLayout::kGroupSlabs, 128};

// bf16: a 16x4 block is two lines of a slab.
inline constexpr BsrLayout kBsr4x1Bf16 = {kBlock4x1, 16, 2, 64, XLayout::kColumnSlabs, 0};
inline constexpr BsrLayout kBsr16x1Bf16 = {kBlock16x1, 16, 2, 64, XLayout::kColumnSlabs, 0};
inline constexpr BsrLayout kBsr16x4Bf16 = {kBlock16x4, 16, 1, 64, XLayout::kGroupSlabs, 0};
inline constexpr BsrLayout kBsr16x4AmxBf16 = {kBlock16x4, 32, 1, 32, XLayout::kGroupSlabs, 0, 8};

}  // namespace sprun::kernels
