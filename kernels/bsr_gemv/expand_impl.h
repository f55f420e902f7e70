// Common part of the expanders: Expand<Arch> turns one chunk of one output into registers.
//
//   Expand<Arch>::bytes<format, narrow>(index, row, values, w)   kByteParts registers of s8
//   Expand<Arch>::words<narrow>(index, row, values, w)           kWordParts registers of bf16
// narrow: no output of the group has more than kGemvNarrow bytes of values in the chunk (bf16: in
// half of it), which is faster where has_narrow<format>().
// index: positions of the group and chunk; values: next value, advanced past those of this chunk.
// Up to kGemvPad bytes past the last value may be read. Layout: bsr_gemv_types.h.
#pragma once

#include "kernels/bsr_gemv/bsr_gemv_types.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::gemv {

template <class Arch, class Vectors = simd::VecArch<Arch>>
struct Expand;

// Entry i of an index area.
template <class T>
SPRUN_INLINE T load_index(const uint8_t* index, int64_t i) {
  T v;
  __builtin_memcpy(&v, index + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return v;
}

// Bytes fetched ahead. Measured on Zen 5, M = 1, weights out of cache, 50 % zeros: 8 KiB gives the
// rate of plain reading, 2 KiB loses 20 % of it, 16 KiB 10 %.
inline constexpr int64_t kFetchAhead = 8192;

// Where a blob keeps what a kernel reads.
struct BlobView {
  const GemvBlob* blob;
  const uint8_t* index;
  const uint8_t* values;
  const int64_t* panels;
  const uint8_t* wide;
  const int32_t* sums;
  int64_t chunks;
  int64_t groups;

  SPRUN_INLINE explicit BlobView(const void* start)
      : blob(static_cast<const GemvBlob*>(start)) {
    const uint8_t* base = static_cast<const uint8_t*>(start);
    index = base + blob->index_offset;
    values = base + blob->values_offset;
    panels = reinterpret_cast<const int64_t*>(base + blob->panels_offset);
    wide = reinterpret_cast<const uint8_t*>(panels + gemv_panels(blob->n) + 1);
    sums = reinterpret_cast<const int32_t*>(base + blob->sums_offset);
    chunks = gemv_chunks(blob->k);
    groups = gemv_groups(blob->n);
  }
};

// Rows of X that are taken together, and their last inputs, padded to a chunk with zeros: so that
// nothing past the end of a row is read.
inline constexpr int64_t kRowBlock = 16;

template <class T>
struct TailRows {
  alignas(64) T x[kRowBlock * kGemvChunk];

  SPRUN_INLINE void fill(const T* rows, int64_t ldx, int64_t count, int64_t k) {
    const int64_t begin = k / kGemvChunk * kGemvChunk;
    for (int64_t i = 0; i < count * kGemvChunk && begin < k; ++i) {
      const int64_t column = begin + i % kGemvChunk;
      x[i] = column < k ? rows[i / kGemvChunk * ldx + column] : T{0};
    }
  }
};

}  // namespace sprun::kernels::gemv
