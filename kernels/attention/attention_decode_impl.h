// Exact attention of a few query rows over a long cache. Head dims are the vector lanes for Q K^T and P V, keys are the
// lanes for softmax. All rows use a tile of K and V while it is in cache, so memory is read once for a group of heads.
#pragma once

#include <cstdint>

#include "kernels/attention/attention_math.h"
#include "kernels/attention/attention_types.h"
#include "kernels/simd/transpose.h"

namespace sprun::kernels::attn {

inline constexpr int64_t kDecodeRows = 8;
inline constexpr int64_t kDecodeTile = 64;

// Register tile of P V: kRows rows x kVecs vectors of dims.
template <class A>
struct DecodeTile {
  static constexpr int kRows = 2, kVecs = 4;
};
template <>
struct DecodeTile<simd::Avx512> {
  static constexpr int kRows = 4, kVecs = 4;
};

template <class A>
class DecodeRunner {
  using V = F32<A>;
  static constexpr int kL = static_cast<int>(V::kLanes);

 public:
  DecodeRunner(const AttentionBlock& block, float* scratch)
      : b_(block), pitch_((block.v_dim + kL - 1) / kL * kL), s_(scratch), o_(scratch + kDecodeRows * kDecodeTile) {}

  void run(float* partial) {
    visit(b_.band_begin, b_.band_end);
    const bool complete = b_.band_begin == 0 && b_.band_end == b_.key_end;
    if (b_.fill > kNegInf && !complete && starved()) visit(0, b_.key_end);
    if (partial != nullptr) store_partial_state(partial);
    else store_output();
  }

 private:
  void visit(int64_t begin, int64_t end) {
    for (int64_t r = 0; r < b_.rows; ++r) {
      max_[r] = b_.sink != nullptr ? b_.sink[r] : kNegInf;
      sum_[r] = b_.sink != nullptr ? 1.0F : 0.0F;
    }
    for (int64_t i = 0; i < b_.rows * pitch_; i += kL) V::zero().store(o_ + i);
    for (int64_t j = begin; j < end; j += kDecodeTile) {
      const int64_t n = end - j < kDecodeTile ? end - j : kDecodeTile;
      for (int64_t i = 0; i < n; i += kL) {
        for (int64_t r = 0; r < b_.rows; ++r) scores(r, j, i, n - i < kL ? n - i : kL);
      }
      for (int64_t r = 0; r < b_.rows; ++r) exponentials(r, n);
      accumulate(b_.v + j * b_.v_row, n);
    }
  }

  bool starved() const {
    for (int64_t r = 0; r < b_.rows; ++r) {
      if (max_[r] <= kLowest) return true;
    }
    return false;
  }

  // Scores of row r with keys j + i ... of which n <= kL exist; the other lanes get -inf.
  void scores(int64_t r, int64_t j, int64_t i, int64_t n) {
    V acc[kL];
#pragma GCC unroll 16
    for (int l = 0; l < kL; ++l) acc[l] = V::zero();
    const float* k = b_.k + (j + i) * b_.k_row;
    if (n == kL) dot_rows(k, b_.k_row, b_.q[r], acc);
    else dot_last_rows(k, n, b_.q[r], acc);
    simd::transpose(acc);
#pragma GCC unroll 4
    for (int step = kL / 2; step > 0; step /= 2) {
#pragma GCC unroll 8
      for (int l = 0; l < step; ++l) acc[l] = acc[l] + acc[l + step];
    }
    float* s = s_ + r * kDecodeTile + i;
    adjust(acc[0] * V::broadcast(b_.scale), r, j + i, n).store(s);
    const int64_t lo = b_.lo[r] - (j + i), hi = b_.hi[r] - (j + i);
    if (lo > 0 || hi < n) fill_outside(s, lo, hi, n);
    for (int64_t l = n; l < kL; ++l) s[l] = kNegInf;
  }

  SPRUN_INLINE void dot_rows(const float* k, int64_t stride, const float* q, V (&acc)[kL]) const {
    int64_t d = 0;
    for (; d + kL <= b_.head_dim; d += kL) {
      const V x = V::load(q + d);
#pragma GCC unroll 16
      for (int l = 0; l < kL; ++l) acc[l] = V::fma(V::load(k + l * stride + d), x, acc[l]);
    }
    if (d == b_.head_dim) return;
    const V x = V::load_partial(q + d, b_.head_dim - d);
    for (int l = 0; l < kL; ++l) {
      acc[l] = V::fma(V::load_partial(k + l * stride + d, b_.head_dim - d), x, acc[l]);
    }
  }

  void dot_last_rows(const float* k, int64_t rows, const float* q, V (&acc)[kL]) const {
    for (int64_t l = 0; l < rows; ++l) {
      for (int64_t d = 0; d < b_.head_dim; d += kL) {
        const int64_t n = b_.head_dim - d < kL ? b_.head_dim - d : kL;
        acc[l] = V::fma(V::load_partial(k + l * b_.k_row + d, n), V::load_partial(q + d, n), acc[l]);
      }
    }
  }

  SPRUN_INLINE V adjust(V s, int64_t r, int64_t j, int64_t n) const {
    if (b_.softcap > 0.0F) s = soft_cap(s, b_.softcap);
    for (int which = 0; which < 2; ++which) {
      if (b_.key_bias[which] != nullptr) s = s + V::load_partial(b_.key_bias[which] + j, n);
    }
    if (b_.mask == nullptr) return s;
    alignas(64) float t[kL] = {};
    for (int64_t l = 0; l < n; ++l) {
      const int64_t at = (j + l) * b_.mask_key;
      if (b_.mask_is_bytes) t[l] = static_cast<const uint8_t*>(b_.mask[r])[at] != 0 ? 0.0F : kNegInf;
      else t[l] = static_cast<const float*>(b_.mask[r])[at];
    }
    return s + V::load(t);
  }

  void fill_outside(float* s, int64_t lo, int64_t hi, int64_t n) const {
    for (int64_t l = 0; l < n; ++l) {
      if ((l < lo || l >= hi) && (b_.mask == nullptr || s[l] > kNegInf)) s[l] = b_.fill;
    }
  }

  void exponentials(int64_t r, int64_t n) {
    float* s = s_ + r * kDecodeTile;
    V top = V::broadcast(max_[r]);
    for (int64_t i = 0; i < n; i += kL) top = V::max(top, V::load(s + i));
    const V high = V::broadcast(top.reduce_max());
    const V low = safe_max(high);
    const V factor = exp_score(V::broadcast(max_[r]) - low);
    V sum = V::zero();
    for (int64_t i = 0; i < n; i += kL) {
      const V e = exp_score(V::load(s + i) - low);
      sum = sum + e;
      e.store(s + i);
    }
    alignas(64) float t[kL];
    high.store(t);
    max_[r] = t[0];
    factor.store(t);
    factor_[r] = t[0];
    sum_[r] = sum_[r] * factor_[r] + sum.reduce_add();
  }

  // O[row, dim] = O * factor + P V for kRs rows and kVs vectors of dims; `width` of the only vector when it is the
  // last.
  template <int kRs, int kVs>
  SPRUN_INLINE void accumulate_tile(const float* value, int64_t n, int64_t r0, int64_t d, int64_t width) {
    V acc[kRs][kVs];
#pragma GCC unroll 4
    for (int r = 0; r < kRs; ++r) {
      const V factor = V::broadcast(factor_[r0 + r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVs; ++v) acc[r][v] = V::load(o_ + (r0 + r) * pitch_ + d + v * kL) * factor;
    }
    const float* s = s_ + r0 * kDecodeTile;
    for (int64_t i = 0; i < n; ++i) {
      const float* from = value + i * b_.v_row + d;
      V x[kVs];
#pragma GCC unroll 4
      for (int v = 0; v < kVs; ++v) x[v] = kVs == 1 ? V::load_partial(from, width) : V::load(from + v * kL);
#pragma GCC unroll 4
      for (int r = 0; r < kRs; ++r) {
        const V p = V::broadcast(s[r * kDecodeTile + i]);
#pragma GCC unroll 4
        for (int v = 0; v < kVs; ++v) acc[r][v] = V::fma(p, x[v], acc[r][v]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRs; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVs; ++v) acc[r][v].store(o_ + (r0 + r) * pitch_ + d + v * kL);
    }
  }

  template <int kVs>
  void accumulate_dims(const float* value, int64_t n, int64_t d, int64_t width) {
    constexpr int kRs = DecodeTile<A>::kRows;
    int64_t r = 0;
    for (; r + kRs <= b_.rows; r += kRs) accumulate_tile<kRs, kVs>(value, n, r, d, width);
    for (; r < b_.rows; ++r) accumulate_tile<1, kVs>(value, n, r, d, width);
  }

  void accumulate(const float* value, int64_t n) {
    constexpr int kVs = DecodeTile<A>::kVecs;
    int64_t d = 0;
    for (; d + kVs * kL <= b_.v_dim; d += kVs * kL) accumulate_dims<kVs>(value, n, d, kL);
    for (; d < b_.v_dim; d += kL) accumulate_dims<1>(value, n, d, b_.v_dim - d < kL ? b_.v_dim - d : kL);
  }

  void store_output() const {
    for (int64_t r = 0; r < b_.rows; ++r) {
      const V inverse = V::broadcast(sum_[r] == 0.0F ? 0.0F : 1.0F / sum_[r]);
      for (int64_t d = 0; d < b_.v_dim; d += kL) {
        const int64_t n = b_.v_dim - d < kL ? b_.v_dim - d : kL;
        (V::load(o_ + r * pitch_ + d) * inverse).store_partial(b_.out[r] + d, n);
      }
    }
  }

  void store_partial_state(float* partial) const {
    for (int64_t r = 0; r < b_.rows; ++r) {
      float* to = partial + r * (b_.v_dim + 2);
      for (int64_t d = 0; d < b_.v_dim; ++d) to[d] = o_[r * pitch_ + d];
      to[b_.v_dim] = max_[r];
      to[b_.v_dim + 1] = sum_[r];
    }
  }

  const AttentionBlock& b_;
  int64_t pitch_;
  float* s_;  // [kDecodeRows, kDecodeTile]
  float* o_;  // [rows, pitch_]
  float max_[kDecodeRows], sum_[kDecodeRows], factor_[kDecodeRows];
};

template <class A>
void run_decode(const AttentionBlock& block, float* partial, float* scratch) {
  DecodeRunner<A>(block, scratch).run(partial);
}

template <class A>
int64_t decode_scratch_floats(int64_t /*head_dim*/, int64_t v_dim) {
  constexpr int64_t kL = F32<A>::kLanes;
  return kDecodeRows * (kDecodeTile + (v_dim + kL - 1) / kL * kL);
}

}  // namespace sprun::kernels::attn
