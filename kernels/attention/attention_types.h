// What the per-ISA attention kernels take: plain data, included by ISA files.
#pragma once

#include <cstdint>

namespace sprun::kernels {

inline constexpr int64_t kAttentionMaxRows = 48;    // most query rows that any kernel takes at once
inline constexpr int64_t kAttentionMaxParts = 256;  // most parts that the keys of a block are split into

// A few query rows that share one key/value head. Keys are [0, key_end); row r sees lo[r] <= j < hi[r], and a key
// outside of that has the score `fill`. Only band_begin <= j < band_end, which covers all rows' ranges, are visited
// unless a row with a finite `fill` finds nothing there.
struct AttentionBlock {
  int64_t rows;               // 1 .. max_rows of the kernel (decode: decode_rows)
  const float* const* q;      // [rows] -> head_dim floats
  float* const* out;          // [rows] -> v_dim floats
  const int64_t* lo;          // [rows]
  const int64_t* hi;          // [rows]
  const void* k;              // k[j * k_row + d * k_dim], of the kernel's type
  int64_t k_row, k_dim;
  const void* v;              // v[j * v_row + d]
  int64_t v_row;
  const float *k_scale, *v_scale;  // [key_end] what codes are multiplied by; null for floats
  int64_t head_dim, v_dim;
  int64_t band_begin, band_end, key_end;
  float scale, softcap;       // softcap <= 0: none
  float fill;
  const float* key_bias[2];   // [key_end] each, or null: added for every row
  const void* const* mask;    // [rows] -> element of key 0, or null
  int64_t mask_key;           // stride
  bool mask_is_bytes;         // bytes, 0 = -inf; else floats to add
  const float* sink;          // [rows] or null
};

struct AttentionKernel {
  int64_t lanes;     // rows are worked on in multiples of this
  int64_t max_rows;  // most rows of run()
  // Attention of the rows. With `partial` it writes no output but, for every row, v_dim sums of exp(s - m) v, then m
  // and the sum of exp(s - m): states that merge (split over keys). scratch: scratch_floats(), 64-byte aligned.
  void (*run)(const AttentionBlock& block, float* partial, float* scratch);
  int64_t (*scratch_floats)(int64_t head_dim, int64_t v_dim, int64_t keys);
  // Null, or called before the first run() of blocks that share keys [0, key_end) and values: leaves them in scratch in
  // the kernel's own form.
  void (*load)(const AttentionBlock& block, float* scratch);
  int64_t decode_rows;  // most rows of decode(), at most kAttentionMaxRows
  // run() for few rows with k_dim == 1: streams K and V once.
  void (*decode)(const AttentionBlock& block, float* partial, float* scratch);
  int64_t (*decode_scratch_floats)(int64_t head_dim, int64_t v_dim);
  // Writes the output rows of the block from the states of `parts` parts, which lie state_floats apart.
  void (*merge)(const AttentionBlock& block, const float* states, int64_t parts, int64_t state_floats);
};

}  // namespace sprun::kernels
