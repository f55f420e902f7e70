// Top-k bodies, instantiated per Arch by topk_<isa>.cc. AVX-512 compacts in registers and stores
// whole vectors (a compressing store is slow on Zen 4); elsewhere the bits of a mask are walked.
#pragma once

#include "kernels/simd/vec.h"
#include "kernels/topk/topk_types.h"

namespace sprun::kernels::topk {

template <class Arch>
struct TopK {
  using V = simd::F32<Arch>;
  static constexpr int64_t kL = V::kLanes;

  // Many sums side by side: products of floats are exact in double.
  static void moments(const float* x, int64_t n, double* sum, double* sum_squares) {
    constexpr int kSums = 32;
    double s[kSums] = {};
    double q[kSums] = {};
    int64_t i = 0;
    for (; i + kSums <= n; i += kSums) {
      for (int j = 0; j < kSums; ++j) {
        const double v = static_cast<double>(x[i + j]);
        s[j] += v;
        q[j] += v * v;
      }
    }
    for (int j = 0; i < n; ++i, ++j) {
      const double v = static_cast<double>(x[i]);
      s[j] += v;
      q[j] += v * v;
    }
    for (int width = kSums / 2; width > 0; width /= 2) {
      for (int j = 0; j < width; ++j) {
        s[j] += s[j + width];
        q[j] += q[j + width];
      }
    }
    *sum = s[0];
    *sum_squares = q[0];
  }

  SPRUN_INLINE static V load(const float* p, int64_t n) {
    return n >= kL ? V::load(p) : V::load_partial(p, n);
  }

#if defined(__AVX512F__)
  using Bits = __mmask16;
  SPRUN_INLINE static Bits bits(simd::Mask<Arch> m) { return m.v; }
  SPRUN_INLINE static void put(Bits m, int32_t first, V values, int32_t* ids, float* out) {
    const __m512i step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i all = _mm512_add_epi32(_mm512_set1_epi32(first), step);
    _mm512_storeu_si512(ids, _mm512_maskz_compress_epi32(m, all));
    if (out != nullptr) _mm512_storeu_ps(out, _mm512_maskz_compress_ps(m, values.v));
  }
#else
  using Bits = unsigned;
  SPRUN_INLINE static Bits bits(simd::Mask<Arch> m) {
#if defined(__AVX2__)
    return static_cast<unsigned>(_mm256_movemask_ps(m.v));
#else
    return static_cast<unsigned>(_mm_movemask_ps(m.v));
#endif
  }
  SPRUN_INLINE static void put(Bits m, int32_t first, V values, int32_t* ids, float* out) {
    float all[kL];
    if (out != nullptr) values.store(all);
    for (; m != 0; m &= m - 1) {
      const int lane = __builtin_ctz(m);
      *ids++ = first + lane;
      if (out != nullptr) *out++ = all[lane];
    }
  }
#endif

  static int64_t select_above(const float* x, int64_t n, float threshold, int32_t base,
                              int32_t* ids, float* values) {
    const V t = V::broadcast(threshold);
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += kL) {
      const V v = load(x + i, n - i);
      Bits m = bits(v > t);
      if (n - i < kL) m = static_cast<Bits>(m & ((1U << (n - i)) - 1U));
      put(m, base + static_cast<int32_t>(i), v - t, ids + count,
          values == nullptr ? nullptr : values + count);
      count += __builtin_popcount(m);
    }
    return count;
  }

  static int64_t select_non_zero(const float* x, int64_t ldx, int64_t rows, int64_t n, int32_t base,
                                 int32_t* ids) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += kL) {
      unsigned zero = ~0U;
      for (int64_t r = 0; r < rows; ++r) {
        zero &= bits(load(x + r * ldx + i, n - i) == V::zero());
      }
      // Lanes past the end are loaded as 0.
      const Bits m = static_cast<Bits>(~zero & ((1U << kL) - 1U));
      put(m, base + static_cast<int32_t>(i), V::zero(), ids + count, nullptr);
      count += __builtin_popcount(m);
    }
    return count;
  }
};

template <class Arch>
inline constexpr TopKKernel kTopK = {TopK<Arch>::moments, TopK<Arch>::select_above,
                                     TopK<Arch>::select_non_zero};

}  // namespace sprun::kernels::topk
