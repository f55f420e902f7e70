// Turns neuron-major rows into the panels of the dense GEMM, for products with many tokens: packed
// once a call into a worker's scratch, they serve every token.
//
// f32, bf16 pairs and int8 quads of a packed weight are all units of 4 bytes: a panel of nr outputs
// is [units of K, nr] of them.
#pragma once

#include <emmintrin.h>

#include <cstdint>
#include <cstring>

namespace sprun::kernels {

// Rows as outputs: panel[q * nr + c] = unit q of row c, zero for c >= count.
inline void pack_row_units(const char* rows, int64_t stride_bytes, int64_t count, int64_t units,
                           int64_t nr, char* panel) {
  for (int64_t c = 0; c < nr; ++c) {
    const char* row = rows + c * stride_bytes;
    for (int64_t q = 0; q < units; ++q) {
      uint32_t unit = 0;
      if (c < count) std::memcpy(&unit, row + 4 * q, 4);
      std::memcpy(panel + 4 * (q * nr + c), &unit, 4);
    }
  }
}

// Rows as inputs, bf16: panel[q * nr + c] = elements c of rows 2q and 2q + 1; `rows` is at the
// first output of the panel, of which `readable` (a multiple of 8) may be read. nr is a multiple
// of 4.
inline void pack_row_pairs(const char* rows, int64_t stride_bytes, int64_t count, int64_t readable,
                           int64_t nr, char* panel) {
  for (int64_t q = 0; 2 * q < count; ++q) {
    const char* first = rows + 2 * q * stride_bytes;
    const bool both = 2 * q + 1 < count;
    char* out = panel + 4 * q * nr;
    for (int64_t c = 0; c < nr; c += 4) {
      __m128i a = _mm_setzero_si128();
      __m128i b = a;
      if (c < readable) {
        a = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(first + 2 * c));
        if (both)
          b = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(first + stride_bytes + 2 * c));
      }
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 4 * c), _mm_unpacklo_epi16(a, b));
    }
  }
}

}  // namespace sprun::kernels
