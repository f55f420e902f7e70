#include "kernels/bsr_gemv/pack.h"

#include <algorithm>
#include <cstring>

#include "kernels/bsr_gemv/decode.h"
#include "kernels/simd/half.h"

namespace sprun::kernels {
namespace {

constexpr int64_t round_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Reads int8 weights as W - zero; T is int8_t or uint8_t.
template <class T>
struct Int8Source {
  using Stored = int8_t;
  static constexpr int64_t kBytes = 1;
  const WeightSource<T>& w;
  const int32_t* zero;
  int64_t zero_stride;
  int at(int64_t n, int64_t k) const {
    const int32_t offset = zero == nullptr ? 0 : zero[n * zero_stride];
    return w.data[n * w.stride_n + k * w.stride_k] - offset;
  }
};

struct Bf16Source {
  using Stored = uint16_t;
  static constexpr int64_t kBytes = 2;
  const WeightSource<float>& w;
  int at(int64_t n, int64_t k) const {
    const uint16_t half = simd::f32_to_bf16(w.data[n * w.stride_n + k * w.stride_k]);
    return (half & 0x7fffU) == 0 ? 0 : half;
  }
};

template <class Source>
GemvCounts count(const Source& source, int64_t n_total, int64_t k_total) {
  GemvCounts c;
  c.n = n_total;
  c.k = k_total;
  for (int64_t n = 0; n < n_total; ++n) {
    for (int64_t k = 0; k < k_total; k += 4) {
      int64_t found = 0;
      for (int64_t i = k; i < std::min(k + 4, k_total); ++i) {
        const int v = source.at(n, i);
        found += v != 0 ? 1 : 0;
        if (Source::kBytes == 1 && (v < -128 || v > 127)) c.fits = false;
      }
      c.weights += found;
      c.quads += found > 0 ? 1 : 0;
      c.most_in_quad = std::max(c.most_in_quad, found);
    }
  }
  return c;
}

// Where the areas of a blob start; the header that the packer writes.
GemvBlob layout(const GemvCounts& c, GemvFormat format, int weight_bytes) {
  GemvBlob b{};
  b.n = c.n;
  b.k = c.k;
  b.format = format;
  b.weight_bytes = static_cast<uint8_t>(weight_bytes);
  const int64_t panels = gemv_panels(c.n);
  const int64_t steps = gemv_groups(c.n) * gemv_chunks(c.k) * kGemvGroup;
  b.sums_offset = round_up(static_cast<int64_t>(sizeof(GemvBlob)));
  const int64_t sums = weight_bytes == 1 ? panels * kGemvPanel * 4 : 0;
  b.panels_offset = b.sums_offset + round_up(sums);
  b.index_offset =
      b.panels_offset + round_up((panels + 1) * 8 + gemv_groups(c.n) * gemv_spans(c.k));
  b.values_offset = b.index_offset + round_up(steps * gemv_index_bytes(format));
  int64_t values = 0;
  switch (format) {
    case GemvFormat::kBitmap: values = c.weights * weight_bytes; break;
    case GemvFormat::kQuads: values = c.quads * 4; break;
    case GemvFormat::kOneOfFour: values = steps * kGemvChunk / 4; break;
    case GemvFormat::kTwoOfFour: values = steps * kGemvChunk / 2; break;
  }
  b.bytes = b.values_offset + round_up(values) + kGemvPad;
  return b;
}

// Appends one chunk of one output: its positions at `index` (of the group and chunk), its values.
template <class Stored>
class Writer {
 public:
  explicit Writer(uint8_t* values) : start_(values), at_(values) {}
  int64_t written() const { return at_ - start_; }

  void write(GemvFormat format, const Stored* w, int64_t row, uint8_t* index) {
    switch (format) {
      case GemvFormat::kBitmap: return write_bitmap(w, index + 8 * row);
      case GemvFormat::kQuads: return write_quads(w, index + 2 * row);
      case GemvFormat::kOneOfFour: return write_kept(w, 0, index + 2 * row);
      case GemvFormat::kTwoOfFour:
        write_kept(w, 0, index + 2 * row);
        return write_kept(w, 1, index + 16 + 2 * row);
    }
  }

 private:
  void put(const Stored* w, int64_t count) {
    const auto bytes = static_cast<size_t>(count) * sizeof(Stored);
    std::memcpy(at_, w, bytes);
    at_ += bytes;
  }
  void write_bitmap(const Stored* w, uint8_t* index) {
    uint64_t stored = 0;
    for (int64_t i = 0; i < kGemvChunk; ++i) {
      if (w[i] == 0) continue;
      stored |= uint64_t{1} << i;
      put(w + i, 1);
    }
    std::memcpy(index, &stored, sizeof(stored));
  }
  void write_quads(const Stored* w, uint8_t* index) {
    unsigned stored = 0;
    for (int64_t q = 0; q < kGemvChunk / 4; ++q) {
      const Stored* quad = w + 4 * q;
      if (quad[0] == 0 && quad[1] == 0 && quad[2] == 0 && quad[3] == 0) continue;
      stored |= 1U << q;
      put(quad, 4);
    }
    const auto bits = static_cast<uint16_t>(stored);
    std::memcpy(index, &bits, sizeof(bits));
  }
  // The weight number `which` of each quad that is not zero, or 0.
  void write_kept(const Stored* w, int64_t which, uint8_t* index) {
    unsigned low = 0;
    unsigned high = 0;
    for (int64_t q = 0; q < kGemvChunk / 4; ++q) {
      Stored value = 0;
      int64_t seen = 0;
      for (unsigned i = 0; i < 4; ++i) {
        if (w[4 * q + i] == 0 || seen++ != which) continue;
        value = w[4 * q + i];
        low |= (i & 1U) << q;
        high |= (i >> 1U) << q;
      }
      put(&value, 1);
    }
    const uint16_t planes[2] = {static_cast<uint16_t>(low), static_cast<uint16_t>(high)};
    std::memcpy(index, &planes[0], 2);
    std::memcpy(index + 2 * kGemvGroup, &planes[1], 2);
  }

  uint8_t* start_;
  uint8_t* at_;
};

// w[0 .. 64) = the chunk of output n that starts at input k, 0 outside the matrix.
template <class Source>
void gather(const Source& source, const GemvBlob& b, int64_t n, int64_t k,
            typename Source::Stored* w) {
  for (int64_t i = 0; i < kGemvChunk; ++i) {
    const bool inside = n < b.n && k + i < b.k;
    w[i] = static_cast<typename Source::Stored>(inside ? source.at(n, k + i) : 0);
  }
}

// Bytes of values that one load must bring: all of a chunk, for bf16 those of half of it.
int64_t largest_load(const int8_t*, int64_t bytes) { return bytes; }
int64_t largest_load(const uint16_t* w, int64_t bytes) {
  const int64_t half = kGemvChunk / 2;
  const int64_t first = half - std::count(w, w + half, uint16_t{0});
  return std::max(2 * first, bytes - 2 * first);
}

template <class Source>
void pack(const Source& source, const GemvCounts& counts, GemvFormat format, void* out) {
  using Stored = typename Source::Stored;
  const GemvBlob b = layout(counts, format, static_cast<int>(Source::kBytes));
  uint8_t* base = static_cast<uint8_t*>(out);
  std::memset(base, 0, static_cast<size_t>(b.index_offset));
  std::memcpy(base, &b, sizeof(b));
  auto* sums = reinterpret_cast<int32_t*>(base + b.sums_offset);
  auto* panels = reinterpret_cast<int64_t*>(base + b.panels_offset);
  auto* wide = reinterpret_cast<uint8_t*>(panels + gemv_panels(b.n) + 1);
  uint8_t* index = base + b.index_offset;
  Writer<Stored> writer(base + b.values_offset);
  Stored w[kGemvChunk];
  for (int64_t g = 0; g < gemv_groups(b.n); ++g) {
    if (g * kGemvGroup % kGemvPanel == 0) panels[g * kGemvGroup / kGemvPanel] = writer.written();
    for (int64_t k = 0; k < b.k; k += kGemvChunk) {
      for (int64_t row = 0; row < kGemvGroup; ++row) {
        const int64_t n = g * kGemvGroup + row;
        gather(source, b, n, k, w);
        const int64_t before = writer.written();
        writer.write(format, w, row, index);
        const int64_t span = g * gemv_spans(b.k) + k / (kGemvChunk * kGemvSpan);
        if (largest_load(w, writer.written() - before) > kGemvNarrow) wide[span] = 1;
        for (int64_t i = 0; Source::kBytes == 1 && i < kGemvChunk; ++i) sums[n] += w[i];
      }
      index += kGemvGroup * gemv_index_bytes(format);
    }
  }
  panels[gemv_panels(b.n)] = writer.written();
  uint8_t* end = base + b.values_offset + writer.written();
  std::memset(index, 0, static_cast<size_t>(base + b.values_offset - index));
  std::memset(end, 0, static_cast<size_t>(base + b.bytes - end));
}

template <class Stored>
void unpack(const void* blob, Stored* out) {
  GemvReader reader(blob);
  const GemvBlob& b = reader.blob();
  for (int64_t g = 0; g < gemv_groups(b.n); ++g) {
    if (g * kGemvGroup % kGemvPanel == 0) reader.seek(g * kGemvGroup / kGemvPanel);
    for (int64_t chunk = 0; chunk < gemv_chunks(b.k); ++chunk) {
      for (int64_t n = g * kGemvGroup; n < (g + 1) * kGemvGroup; ++n) {
        Stored w[kGemvChunk];
        reader.read(g, chunk, n % kGemvGroup, w);
        const int64_t k = chunk * kGemvChunk;
        const int64_t count = n < b.n ? std::min(kGemvChunk, b.k - k) : 0;
        std::copy(w, w + count, out + n * b.k + k);
      }
    }
  }
}

}  // namespace

GemvCounts count_gemv_s8(const WeightSource<int8_t>& w, const int32_t* zero, int64_t zero_stride) {
  return count(Int8Source<int8_t>{w, zero, zero_stride}, w.n, w.k);
}

GemvCounts count_gemv_u8(const WeightSource<uint8_t>& w, const int32_t* zero,
                         int64_t zero_stride) {
  return count(Int8Source<uint8_t>{w, zero, zero_stride}, w.n, w.k);
}

GemvCounts count_gemv_bf16(const WeightSource<float>& w) {
  return count(Bf16Source{w}, w.n, w.k);
}

const char* gemv_refusal(const GemvCounts& counts, GemvFormat format, int weight_bytes) {
  if (!counts.fits) return "a weight minus its zero point does not fit 8 bits";
  if (weight_bytes == 2 && format != GemvFormat::kBitmap) {
    return "bf16 weights have the bitmap format only";
  }
  if (format == GemvFormat::kOneOfFour && counts.most_in_quad > 1) {
    return "more than one of four consecutive weights is not zero";
  }
  if (format == GemvFormat::kTwoOfFour && counts.most_in_quad > 2) {
    return "more than two of four consecutive weights are not zero";
  }
  return nullptr;
}

int64_t gemv_packed_bytes(const GemvCounts& counts, GemvFormat format, int weight_bytes) {
  return layout(counts, format, weight_bytes).bytes;
}

void pack_gemv_s8(const WeightSource<int8_t>& w, const int32_t* zero, int64_t zero_stride,
                  const GemvCounts& counts, GemvFormat format, void* blob) {
  pack(Int8Source<int8_t>{w, zero, zero_stride}, counts, format, blob);
}

void pack_gemv_u8(const WeightSource<uint8_t>& w, const int32_t* zero, int64_t zero_stride,
                  const GemvCounts& counts, GemvFormat format, void* blob) {
  pack(Int8Source<uint8_t>{w, zero, zero_stride}, counts, format, blob);
}

void pack_gemv_bf16(const WeightSource<float>& w, const GemvCounts& counts, GemvFormat format,
                    void* blob) {
  pack(Bf16Source{w}, counts, format, blob);
}

void unpack_gemv_s8(const void* blob, int8_t* out) { unpack(blob, out); }
void unpack_gemv_bf16(const void* blob, uint16_t* out) { unpack(blob, out); }

}  // namespace sprun::kernels
