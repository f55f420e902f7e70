// Packed form and kernel tables of the compressed GEMV family. Plain data: ISA files include it.
//
// Weights W[N, K] are stored without their zeros and expanded in registers. Outputs are taken four
// at a time (a group), inputs 64 at a time (a chunk); for each (group, chunk) the blob holds the
// positions of four rows in one area (`index`) and their values in another (`values`). Both areas
// are read front to back, once per block of rows of X.
//
//   format      index, per output and chunk       values                     bytes per int8 weight
//   kBitmap     u64, bit k: W[n, k] is stored     stored weights, by k       d + 1/8
//   kQuads      u16, bit q: quad q is stored      stored quads of 4, by k    d + 1/32
//   kOneOfFour  u16 low, u16 high: position 0..3  one weight per quad [16]   1/4 + 1/16
//   kTwoOfFour  the same, twice                   [2][16]                    1/2 + 1/8
// with d the part that is stored. bf16 weights (kBitmap only) take 2 d + 1/8. A u16 index per 1x4
// block would need fewer bytes only below d = 1/16, and gathered activations: it is not offered.
#pragma once

#include <cstdint>

#include "kernels/gemm/gemm_types.h"

namespace sprun::kernels {

enum class GemvFormat : uint8_t {
  kBitmap,     // unstructured, also 2:4 and 4:8
  kQuads,      // blocks of 1 output x 4 consecutive inputs
  kOneOfFour,  // 1:4, at most one weight of 4 consecutive inputs is stored
  kTwoOfFour,  // 2:4, at most two
};

inline constexpr int64_t kGemvGroup = 4;   // outputs whose positions and values are interleaved
inline constexpr int64_t kGemvChunk = 64;  // inputs per step
inline constexpr int64_t kGemvPanel = 32;  // outputs of the smallest part that a worker takes
inline constexpr int64_t kGemvSpan = 16;   // chunks that share one flag
inline constexpr int64_t kGemvNarrow = 32;
inline constexpr int64_t kGemvPad = 256;   // readable bytes after the values

// Start of the blob; offsets in bytes from it, every area 64-byte aligned.
struct GemvBlob {
  int64_t n, k;
  int64_t bytes;          // of the whole blob, padding included
  int64_t sums_offset;    // int32 [panels * kGemvPanel]: sum_k of the stored weights (int8 only)
  int64_t panels_offset;  // int64 [panels + 1]: where the values of a panel start in `values`, then
                          // u8 [groups, gemv_spans(k)]: 1 where kGemvNarrow bytes are not enough
                          // for the values of some output and chunk (bf16: half chunk) of a span
  int64_t index_offset;   // [groups, chunks, kGemvGroup] positions, see above
  int64_t values_offset;  // [groups, chunks, kGemvGroup] values
  GemvFormat format;
  uint8_t weight_bytes;  // 1: s8, 2: bf16
  uint8_t reserved[6];
};
static_assert(sizeof(GemvBlob) == 64);

constexpr int64_t gemv_panels(int64_t n) { return (n + kGemvPanel - 1) / kGemvPanel; }
constexpr int64_t gemv_groups(int64_t n) { return (n + kGemvGroup - 1) / kGemvGroup; }
constexpr int64_t gemv_chunks(int64_t k) { return (k + kGemvChunk - 1) / kGemvChunk; }

constexpr int64_t gemv_spans(int64_t k) { return (gemv_chunks(k) + kGemvSpan - 1) / kGemvSpan; }

// Bytes of positions per output and chunk.
constexpr int64_t gemv_index_bytes(GemvFormat format) {
  switch (format) {
    case GemvFormat::kBitmap: return 8;
    case GemvFormat::kQuads: return 2;
    case GemvFormat::kOneOfFour: return 4;
    case GemvFormat::kTwoOfFour: return 8;
  }
  return 0;
}

// Both kernels write rows [m_begin, m_end) of the outputs of panels [panel_begin, panel_end).
// args.w is the blob, args.n and args.k its own.
struct BsrGemvU8S8Kernel {
  // Every format. args.w_sum is not read: the sums are in the blob.
  void (*run)(const GemmU8S8Args& args, const TileRange& tiles);
};

struct BsrGemvBf16Kernel {
  // kBitmap. Nothing of X past K is read.
  void (*run)(const GemmBf16Args& args, const TileRange& tiles);
};

}  // namespace sprun::kernels
