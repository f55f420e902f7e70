// Argument structs and kernel tables of the block-sparse products. Plain data: ISA files include it.
//
//   Y[m, n] = act(..sum over stored blocks of W X..) with the epilogues of gemm_types.h
//
// W[N, K] is stored by units of `unit_rows` outputs. A unit is a list of runs; a run is the stored
// blocks of one block row inside one K block, cut into groups; a group is `group_blocks` blocks, kept
// as their columns and values. Runs of a unit are ordered by K block, inside
// it by length, so that loops over neighbouring runs are as long as each other.
// Lanes of most kernels are tokens: X is first copied into slabs of `slab_tokens` rows, in the order
// that the pattern needs (XLayout). Sizes are in elements unless a name says bytes.
// Numeric: u8s8 exact int32 for K <= 65 793; f32 and bf16 sum the stored products in an order of
// their own. A zero that is not stored is skipped also where X is inf or NaN.
// Errors: none; preconditions are the caller's. Threads: a kernel call runs on the calling thread.
#pragma once

#include <cstdint>

#include "kernels/bsr/block_shape.h"
#include "kernels/gemm/gemm_types.h"

namespace sprun::kernels {

enum class XLayout : uint8_t {
  kRowMajor,     // X as it is: [M, ldx]
  // [slab][K][64]; u8: byte 16 L + 4 v + e of an input belongs to token 16 v + 4 L + e; bf16: element
  // 32 h + 8 L + 4 v + e belongs to token 32 h + 16 v + 4 L + e.
  kColumnSlabs,
  kGroupSlabs,   // [slab][ceil(K / g)][slab_tokens][g]; g inputs fill 4 bytes: 4 u8, 2 bf16, 1 f32
};

// How a kernel wants its weights and activations.
struct BsrLayout {
  BlockShape block;
  int16_t unit_rows;     // outputs of a unit, a multiple of 16 and of block.rows
  int16_t group_blocks;  // blocks of a group; the last one is filled with zeros
  int16_t slab_tokens;
  XLayout x_layout;
  int32_t k_block;  // inputs of a K block, a multiple of block.cols; 0 = all of K
  // Over 1, with groups of one block: values of so many blocks of a run form a tile, see BsrWeights.
  int16_t tile_blocks = 1;
  bool operator==(const BsrLayout&) const = default;
};

// Elements of one slab: K is filled up to whole block columns.
constexpr int64_t x_slab_elements(const BsrLayout& layout, int64_t k) {
  const int64_t step = layout.block.cols;
  return (k + step - 1) / step * step * layout.slab_tokens;
}
constexpr int64_t num_slabs(const BsrLayout& layout, int64_t m) {
  return (m + layout.slab_tokens - 1) / layout.slab_tokens;
}

struct BsrRun {
  uint16_t row;     // first output, counted from the start of the unit
  uint16_t groups;  // may be 0
};

struct BsrUnit {
  int32_t first_run, first_group;
};

// Packed weights; the arrays lie in one block of memory, in this order, and a kernel may read up to
// 16 bytes behind the columns. Values of a group are
// [block.rows][group_blocks * block.cols], so the four inputs of a u8s8 group are one dword. Values
// of a tile are [block.rows][blocks of the tile * block.cols]; the last tile of a run may be narrower.
struct BsrWeights {
  const BsrUnit* units = nullptr;  // [num_units + 1]
  const BsrRun* runs = nullptr;
  const uint16_t* cols = nullptr;  // [groups, group_blocks] block columns, ascending in a run
  const void* values = nullptr;
  int64_t num_units = 0;
  // u8s8: bsr_pairs_fit() of the values. Kernels with a bounded form then use it.
  bool pairs_fit = false;
};

// Part of a product for one worker.
struct BsrRange {
  int64_t slab_begin, slab_end;
  int64_t unit_begin, unit_end;
};

// gemm.w is not used; w_sum is [num_units * unit_rows]. gemm.x is used by kRowMajor kernels, else
// `slabs`. gemm.w_zero_point must be null: the packer subtracts weight zero points.
struct BsrU8S8Args {
  GemmU8S8Args gemm;
  BsrWeights w;
  const uint8_t* slabs = nullptr;
};

// Y as the X of a product that wants kColumnSlabs, so that nothing is turned around between two layers.
// Needs one scale and zero point for all of X, and no residual; of tokens past M some are written.
struct BsrColumns {
  float* floats = nullptr;  // [slab][N][64], token 64 slab + t at t
  float* range = nullptr;   // [2] with floats: min and max of what was there, of 0 and of Y; NaN is skipped
  // Instead of floats: saturate_u8(round_half_even(y / scale) + zero_point) in the order of kColumnSlabs.
  uint8_t* codes = nullptr;
  float scale = 1.0F;
  int32_t zero_point = 0;
};

struct BsrU8S8Kernel {
  BsrLayout layout;
  int64_t min_m;          // rows from which the kernel is worth taking before the next in the list
  int64_t scratch_bytes;  // per worker, 64-byte aligned; independent of the problem
  void (*run)(const BsrU8S8Args& args, const BsrRange& range, void* scratch);
  // Copies rows of X [m, k] into slab `slab` at `out` (slab_bytes() bytes); null for kRowMajor.
  void (*pack_x)(const uint8_t* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, uint8_t* out);
  bool has_bounded_form = false;  // quicker for weights with pairs_fit; the result is the same
  // kColumnSlabs only, else null. run() with Y as columns; gemm.y, y_s32 and the residual are not used.
  void (*run_columns)(const BsrU8S8Args& args, const BsrColumns& y, const BsrRange& range, void* scratch) = nullptr;
  // Codes of `inputs` rows of 64 floats of BsrColumns, in the order of kColumnSlabs; of the tokens from `tokens` on
  // nothing is promised.
  void (*quantize_columns)(const float* x, int64_t inputs, int64_t tokens, float scale, int32_t zero_point,
                           uint8_t* out) = nullptr;
  // Codes [outputs][64] of one slab of BsrColumns as rows: y[t * ldy + n] = code ^ flip (0x80 makes s8 of u8 codes),
  // for t < tokens.
  void (*rows_of_columns)(const uint8_t* codes, int64_t outputs, int64_t tokens, uint8_t flip, uint8_t* y,
                          int64_t ldy) = nullptr;
};

// gemm.x, gemm.ldx and gemm.w are not used.
struct BsrF32Args {
  GemmF32Args gemm;
  BsrWeights w;
  const float* slabs = nullptr;
};

struct BsrF32Kernel {
  BsrLayout layout;
  int64_t min_m;
  int64_t scratch_bytes;
  void (*run)(const BsrF32Args& args, const BsrRange& range, void* scratch);
  void (*pack_x)(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, float* out);
};

// gemm.x, gemm.ldx and gemm.w are not used. Values are bf16.
struct BsrBf16Args {
  GemmBf16Args gemm;
  BsrWeights w;
  const uint16_t* slabs = nullptr;
};

struct BsrBf16Kernel {
  BsrLayout layout;
  int64_t min_m;
  int64_t scratch_bytes;
  void (*run)(const BsrBf16Args& args, const BsrRange& range, void* scratch);
  // The same from f32 rows, which are rounded to bf16 (nearest even).
  void (*pack_x)(const float* x, int64_t ldx, int64_t m, int64_t k, int64_t slab, uint16_t* out);
};

}  // namespace sprun::kernels
