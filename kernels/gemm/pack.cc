#include "kernels/gemm/pack.h"

#include <emmintrin.h>

#include <cmath>
#include <cstring>

namespace sprun::kernels {
namespace {

// Four inputs of up to 16 outputs at a time, 8 outputs wide: rows are `stride_k` apart and outputs
// adjacent. out[n] gets the bytes of inputs k .. k + 3.
void interleave8(const uint8_t* in, int64_t stride_k, uint8_t flip, uint8_t* out) {
  const auto row = [&](int64_t k) {
    return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + k * stride_k));
  };
  const __m128i k01 = _mm_unpacklo_epi8(row(0), row(1));
  const __m128i k23 = _mm_unpacklo_epi8(row(2), row(3));
  const __m128i mask = _mm_set1_epi8(static_cast<char>(flip));
  const __m128i low = _mm_xor_si128(_mm_unpacklo_epi16(k01, k23), mask);
  const __m128i high = _mm_xor_si128(_mm_unpackhi_epi16(k01, k23), mask);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), low);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), high);
}

// One quad of one output, element by element; inputs past the end stay 0.
void pack_quad(const WeightSource<uint8_t>& w, int64_t n, int64_t k, uint8_t flip, uint8_t* out) {
  for (int64_t i = 0; i < 4; ++i) {
    const bool inside = n < w.n && k + i < w.k;
    out[i] = inside ? static_cast<uint8_t>(w.data[n * w.stride_n + (k + i) * w.stride_k] ^ flip)
                    : uint8_t{0};
  }
}

// `flip` 0x80 turns u8 into u8 - 128 as s8.
void pack_panel(const WeightSource<uint8_t>& w, int64_t nr, int64_t panel, uint8_t flip,
                uint8_t* out) {
  const uint32_t flip4 = flip * 0x01010101U;
  const int64_t n0 = panel * nr;
  for (int64_t k = 0; k < w.k; k += 4) {
    const bool full = k + 4 <= w.k;
    for (int64_t c = 0; c < nr;) {
      const int64_t n = n0 + c;
      if (full && w.stride_n == 1 && n + 8 <= w.n && c + 8 <= nr) {
        interleave8(w.data + n + k * w.stride_k, w.stride_k, flip, out);
        c += 8;
        out += 32;
        continue;
      }
      if (full && w.stride_k == 1 && n < w.n) {
        uint32_t quad;
        std::memcpy(&quad, w.data + n * w.stride_n + k, 4);
        quad ^= flip4;
        std::memcpy(out, &quad, 4);
      } else {
        pack_quad(w, n, k, flip, out);
      }
      c += 1;
      out += 4;
    }
  }
}

void sum_panel(const int8_t* packed, int64_t quads, int64_t nr, int32_t* sums) {
  for (int64_t c = 0; c < nr; ++c) sums[c] = 0;
  for (int64_t q = 0; q < quads; ++q) {
    const int8_t* in = packed + q * nr * 4;
    for (int64_t c = 0; c < nr; ++c) {
      sums[c] += in[4 * c] + in[4 * c + 1] + in[4 * c + 2] + in[4 * c + 3];
    }
  }
}

void pack_bytes(const WeightSource<uint8_t>& w, int64_t nr, int64_t begin, int64_t end,
                uint8_t flip, int8_t* packed, int32_t* sums) {
  const int64_t quads = (w.k + 3) / 4;
  for (int64_t p = begin; p < end; ++p) {
    int8_t* out = packed + p * quads * nr * 4;
    pack_panel(w, nr, p, flip, reinterpret_cast<uint8_t*>(out));
    sum_panel(out, quads, nr, sums + p * nr);
  }
}

}  // namespace

void pack_s8(const WeightSource<int8_t>& w, int64_t nr, int64_t begin, int64_t end,
             int8_t* packed, int32_t* sums) {
  const WeightSource<uint8_t> bytes{reinterpret_cast<const uint8_t*>(w.data), w.n, w.k, w.stride_n,
                                    w.stride_k};
  pack_bytes(bytes, nr, begin, end, 0, packed, sums);
}

void pack_u8(const WeightSource<uint8_t>& w, int64_t nr, int64_t begin, int64_t end,
             int8_t* packed, int32_t* sums) {
  pack_bytes(w, nr, begin, end, 0x80, packed, sums);
}

void quantize_weights_s8(const WeightSource<float>& w, int64_t begin, int64_t end, int8_t* q,
                         float* scale) {
  for (int64_t n = begin; n < end; ++n) {
    const float* in = w.data + n * w.stride_n;
    float largest = 0.0F;
    for (int64_t k = 0; k < w.k; ++k) {
      const float a = std::fabs(in[k * w.stride_k]);
      if (a > largest) largest = a;
    }
    scale[n] = largest > 0.0F ? largest / 127.0F : 1.0F;
    for (int64_t k = 0; k < w.k; ++k) {
      const float v = std::nearbyint(in[k * w.stride_k] / scale[n]);
      // Also catches infinities and NaN, whose conversion would be undefined.
      q[n * w.k + k] = static_cast<int8_t>(v >= -127.0F && v <= 127.0F ? v : 0.0F);
    }
  }
}

void s8_to_u8(const int8_t* x, int64_t n, uint8_t* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<uint8_t>(x[i] ^ 0x80);
}

}  // namespace sprun::kernels
