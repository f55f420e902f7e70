// Compressed weights for the GEMV family: what a format would take, packing, and back again.
//
//   const GemvCounts counts = count_gemv_s8(source, nullptr, 0);
//   if (gemv_refusal(counts, GemvFormat::kQuads, 1) == nullptr) {
//     void* blob = allocate(gemv_packed_bytes(counts, GemvFormat::kQuads, 1));  // aligned to 64
//     pack_gemv_s8(source, nullptr, 0, counts, GemvFormat::kQuads, blob);
//   }
//
// A blob is position independent: it may be copied, written to a file and mapped again.
// Thread safety: all functions are re-entrant. Cost: one or two passes over W.
#pragma once

#include <cstdint>

#include "kernels/bsr_gemv/bsr_gemv_types.h"

namespace sprun::kernels {

// What is not zero in a weight, enough to know the size of every format.
struct GemvCounts {
  int64_t n = 0, k = 0;
  int64_t weights = 0;       // elements that are not zero
  int64_t quads = 0;         // 1x4 blocks, at k = 0, 4, ..., with such an element
  int64_t most_in_quad = 0;  // largest number of them in one block
  bool fits = true;          // every W - zero is an s8 (int8 only)
};

// `zero`: zero points of the weights, null = 0; zero_stride 0: one for all outputs, 1: per output.
// Counted and packed is W - zero.
GemvCounts count_gemv_s8(const WeightSource<int8_t>& w, const int32_t* zero, int64_t zero_stride);
GemvCounts count_gemv_u8(const WeightSource<uint8_t>& w, const int32_t* zero, int64_t zero_stride);
// Elements that bf16 rounds to zero count as zeros.
GemvCounts count_gemv_bf16(const WeightSource<float>& w);

// Why a weight cannot be packed this way; null when it can. weight_bytes: 1 (s8) or 2 (bf16).
const char* gemv_refusal(const GemvCounts& counts, GemvFormat format, int weight_bytes);

// Bytes of the blob, exactly, for a weight that is not refused.
int64_t gemv_packed_bytes(const GemvCounts& counts, GemvFormat format, int weight_bytes);

// Writes gemv_packed_bytes() bytes to `blob` (64-byte aligned). `counts` must be those of `w`, and
// gemv_refusal() null.
void pack_gemv_s8(const WeightSource<int8_t>& w, const int32_t* zero, int64_t zero_stride,
                  const GemvCounts& counts, GemvFormat format, void* blob);
void pack_gemv_u8(const WeightSource<uint8_t>& w, const int32_t* zero, int64_t zero_stride,
                  const GemvCounts& counts, GemvFormat format, void* blob);
void pack_gemv_bf16(const WeightSource<float>& w, const GemvCounts& counts, GemvFormat format,
                    void* blob);

// out[n * K + k] = W[n, k] as stored, for all n and k.
void unpack_gemv_s8(const void* blob, int8_t* out);
void unpack_gemv_bf16(const void* blob, uint16_t* out);

}  // namespace sprun::kernels
