// Weight packers, instantiated per Arch: they also run at inference time when B is not constant.
#pragma once

#include "kernels/gemm/gemm_types.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::gemm {

// Copies w[n0 .. n0 + cols) x [0, k) to out[k, kNr] (columns past cols are 0), where consecutive
// outputs are adjacent in memory (stride_n = 1).
template <class Arch, int64_t kNr>
void pack_f32_rows(const WeightSource<float>& w, int64_t n0, int64_t cols, float* out) {
  using V = simd::F32<simd::VecArch<Arch>>;
  const float* in = w.data + n0;
  for (int64_t k = 0; k < w.k; ++k, in += w.stride_k, out += kNr) {
#pragma GCC unroll 2
    for (int64_t c = 0; c < kNr; c += V::kLanes) {
      const int64_t left = cols - c;
      const V v = left >= V::kLanes ? V::load(in + c)
                  : left > 0        ? V::load_partial(in + c, left)
                                    : V::zero();
      v.store(out + c);
    }
  }
}

// 4 x 4 transpose: out[j, i] = in[i, j], i < 4 (rows of `in` past `rows` count as 0).
SPRUN_INLINE void transpose4x4(const float* in, int64_t ld, int64_t rows, float* out,
                               int64_t ld_out) {
  __m128 r0 = _mm_loadu_ps(in);
  __m128 r1 = rows > 1 ? _mm_loadu_ps(in + ld) : _mm_setzero_ps();
  __m128 r2 = rows > 2 ? _mm_loadu_ps(in + 2 * ld) : _mm_setzero_ps();
  __m128 r3 = rows > 3 ? _mm_loadu_ps(in + 3 * ld) : _mm_setzero_ps();
  _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
  _mm_storeu_ps(out, r0);
  _mm_storeu_ps(out + ld_out, r1);
  _mm_storeu_ps(out + 2 * ld_out, r2);
  _mm_storeu_ps(out + 3 * ld_out, r3);
}

// The same for any strides; groups of 4 x 4 are transposed in registers when stride_k = 1.
template <class Arch, int64_t kNr>
void pack_f32_strided(const WeightSource<float>& w, int64_t n0, int64_t cols, float* out) {
  const float* in = w.data + n0 * w.stride_n;
  int64_t k = 0;
  if (w.stride_k == 1) {
    for (; k + 4 <= w.k; k += 4) {
      for (int64_t c = 0; c < kNr; c += 4) {
        float* o = out + k * kNr + c;
        if (c < cols) {
          transpose4x4(in + c * w.stride_n + k, w.stride_n, cols - c, o, kNr);
        } else {
          for (int64_t i = 0; i < 4; ++i) _mm_storeu_ps(o + i * kNr, _mm_setzero_ps());
        }
      }
    }
  }
  for (; k < w.k; ++k) {
    for (int64_t c = 0; c < kNr; ++c) {
      out[k * kNr + c] = c < cols ? in[c * w.stride_n + k * w.stride_k] : 0.0F;
    }
  }
}

template <class Arch, int64_t kNr>
void pack_f32(const WeightSource<float>& w, int64_t panel_begin, int64_t panel_end,
              float* packed) {
  for (int64_t p = panel_begin; p < panel_end; ++p) {
    const int64_t n0 = p * kNr;
    const int64_t cols = w.n - n0 < kNr ? w.n - n0 : kNr;
    float* out = packed + n0 * w.k;
    if (w.stride_n == 1) {
      pack_f32_rows<Arch, kNr>(w, n0, cols, out);
    } else {
      pack_f32_strided<Arch, kNr>(w, n0, cols, out);
    }
  }
}

}  // namespace sprun::kernels::gemm
