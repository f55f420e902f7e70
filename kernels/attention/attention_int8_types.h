// What the per-ISA kernels of integer attention take: plain data, included by ISA files.
#pragma once

#include <cstdint>

namespace sprun::kernels {

inline constexpr int64_t kAttentionInt8MaxRows = 48;  // most query rows that any kernel takes at once

// A few query rows of one head. Codes c are worked on as c ^ flip (0 or 0x80), Q as u8, K and V as s8, and zero points
// count those; codes of the softmax are u8.
struct AttentionInt8Block {
  int64_t rows;             // 1 .. max_rows of the kernel
  const uint8_t* const* q;  // [rows] -> head_dim codes
  void* const* out;         // [rows] -> v_dim floats, or codes with `requantise`
  const uint8_t* k;         // k[j * k_row + d * k_dim]
  int64_t k_row, k_dim;
  const uint8_t* v;         // v[j * v_row + d]
  int64_t v_row;
  int64_t head_dim, v_dim, keys;
  uint8_t q_flip, k_flip, v_flip, y_flip;
  int32_t q_zero, k_zero, v_zero, p_zero, y_zero;
  float score_scale;        // of the int32 sums of Q K^T
  float p_inverse;          // 1 / scale of the softmax's codes
  float out_scale;          // of the int32 sums of P V
  float y_inverse;          // 1 / scale of the result's codes
  bool requantise;
  const float* key_bias;    // [keys] or null: added for every row
  const void* const* mask;  // [rows] -> element of key 0, or null
  int64_t mask_key;         // stride
  bool mask_is_bytes;       // bytes, 0 = -inf; else floats to add
};

struct AttentionInt8Kernel {
  int64_t max_rows;
  // Before the first run() of blocks that share keys and values: leaves them in scratch in the kernel's own form.
  void (*load)(const AttentionInt8Block& block, char* scratch);
  void (*run)(const AttentionInt8Block& block, char* scratch);
  int64_t (*scratch_bytes)(int64_t head_dim, int64_t v_dim, int64_t keys);  // 64-byte aligned
};

}  // namespace sprun::kernels
