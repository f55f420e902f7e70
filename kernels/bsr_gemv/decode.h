// Reads a blob one output and one chunk at a time: the reference kernels and unpack() share it.
// Baseline code only.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/bsr_gemv/bsr_gemv_types.h"

namespace sprun::kernels {

class GemvReader {
 public:
  explicit GemvReader(const void* blob)
      : base_(static_cast<const uint8_t*>(blob)), blob_(*static_cast<const GemvBlob*>(blob)) {}

  const GemvBlob& blob() const { return blob_; }
  const int32_t* sums() const {
    return reinterpret_cast<const int32_t*>(base_ + blob_.sums_offset);
  }

  // Goes to the first value of a panel; chunks are then read in the order group, chunk, output.
  void seek(int64_t panel) {
    int64_t offset;
    std::memcpy(&offset, base_ + blob_.panels_offset + 8 * panel, 8);
    values_ = base_ + blob_.values_offset + offset;
  }

  // out[i] = stored weight at input 64 * chunk + i of output kGemvGroup * group + row, 0 <= i < 64.
  // T: int8_t or uint16_t (bf16 bits), as the blob holds.
  template <class T>
  void read(int64_t group, int64_t chunk, int64_t row, T* out) {
    const int64_t step = (group * gemv_chunks(blob_.k) + chunk) * kGemvGroup;
    const uint8_t* index =
        base_ + blob_.index_offset + step * gemv_index_bytes(blob_.format);
    std::memset(out, 0, kGemvChunk * sizeof(T));
    switch (blob_.format) {
      case GemvFormat::kBitmap: return read_bitmap(load<uint64_t>(index, row), out);
      case GemvFormat::kQuads: return read_quads(load<uint16_t>(index, row), out);
      case GemvFormat::kOneOfFour: return read_kept(index, row, out);
      case GemvFormat::kTwoOfFour:
        read_kept(index, row, out);
        return read_kept(index + 16, row, out);
    }
  }

 private:
  template <class U>
  static U load(const uint8_t* p, int64_t i) {
    U v;
    std::memcpy(&v, p + i * static_cast<int64_t>(sizeof(U)), sizeof(U));
    return v;
  }
  template <class T>
  void read_bitmap(uint64_t stored, T* out) {
    for (int64_t i = 0; i < kGemvChunk; ++i) {
      if (((stored >> i) & 1U) != 0) take(out + i, 1);
    }
  }
  template <class T>
  void read_quads(uint16_t stored, T* out) {
    for (int64_t q = 0; q < kGemvChunk / 4; ++q) {
      if (((stored >> q) & 1U) != 0) take(out + 4 * q, 4);
    }
  }
  // One weight per quad. Where a quad has fewer, the rest are zeros at position 0.
  template <class T>
  void read_kept(const uint8_t* index, int64_t row, T* out) {
    const unsigned low = load<uint16_t>(index, row);
    const unsigned high = load<uint16_t>(index, kGemvGroup + row);
    for (int64_t q = 0; q < kGemvChunk / 4; ++q) {
      T value;
      take(&value, 1);
      const unsigned position = ((low >> q) & 1U) + 2 * ((high >> q) & 1U);
      if (value != 0) out[4 * q + position] = value;
    }
  }
  template <class T>
  void take(T* out, int64_t count) {
    const auto bytes = static_cast<size_t>(count) * sizeof(T);
    std::memcpy(out, values_, bytes);
    values_ += bytes;
  }

  const uint8_t* base_;
  const GemvBlob& blob_;
  const uint8_t* values_ = nullptr;
};

}  // namespace sprun::kernels
