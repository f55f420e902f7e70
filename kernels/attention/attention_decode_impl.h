// Exact attention of a few query rows over a long cache. Head dims are the vector lanes for Q K^T and P V, keys are the
// lanes for softmax. All rows use a tile of K and V while it is in cache, so memory is read once for a group of heads.
// Narrow keys and values are widened in registers, each for up to four rows. 8-bit codes: the scale of a key goes into
// its score, that of a value into its probability.
#pragma once

#include <cstdint>

#include "kernels/attention/attention_math.h"
#include "kernels/attention/attention_stored_impl.h"
#include "kernels/attention/attention_types.h"
#include "kernels/simd/row_sums.h"

namespace sprun::kernels::attn {

inline constexpr int64_t kDecodeTile = 64;

// Most rows. More than these pay for rows as lanes, the sooner the less there is to gain from reading memory once.
template <class A, class T>
inline constexpr int64_t kDecodeRows = (sizeof(T) == sizeof(float) ? 24 : 16) + (F32<A>::kLanes == 16 ? 8 : 0);

// Register tile of P V for kRows rows: vectors of dims. Few rows need as many sums, or each waits for the one before.
template <class A, int kRows>
inline constexpr int kDecodeVecs = kRows == 4 ? 2 : 4;
template <int kRows>
inline constexpr int kDecodeVecs<simd::Avx512, kRows> = 4;

// T: the type of K and V in memory.
template <class A, class T>
class DecodeRunner {
  using V = F32<A>;
  using S = Stored<A, T>;
  static constexpr int kL = static_cast<int>(V::kLanes);

 public:
  DecodeRunner(const AttentionBlock& block, float* scratch)
      : b_(block),
        k_(static_cast<const T*>(block.k)),
        v_(static_cast<const T*>(block.v)),
        pitch_((block.v_dim + kL - 1) / kL * kL),
        s_(scratch),
        o_(scratch + kDecodeRows<A, T> * kDecodeTile) {}

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
      products(j, n);
      for (int64_t r = 0; r < b_.rows; ++r) {
        if (n == kDecodeTile && is_plain(r, j)) {
          exponentials<true>(r, j, n, scale_products(r, j));
        } else {
          exponentials<false>(r, j, n, scores(r, j, n));
        }
      }
      accumulate(j, n);
    }
  }

  bool starved() const {
    for (int64_t r = 0; r < b_.rows; ++r) {
      if (max_[r] <= kLowest) return true;
    }
    return false;
  }

  // q . k of all rows with keys j .. j + n into s_; past them any.
  void products(int64_t j, int64_t n) {
    int64_t r = 0;
    for (; r + 4 <= b_.rows; r += 4) row_products<4>(r, j, n);
    if (r + 2 <= b_.rows) row_products<2>(r, j, n), r += 2;
    if (r < b_.rows) row_products<1>(r, j, n);
  }

  template <int kRs>
  void row_products(int64_t r0, int64_t j, int64_t n) {
    constexpr int kKs = kL / kRs;  // keys at a time
    const T* k = k_ + j * b_.k_row;
    int64_t i = 0;
    for (; i + kKs <= n; i += kKs) {
      if (r0 == 0) prefetch(v_ + (j + i) * b_.v_row, b_.v_row, kKs, b_.v_dim);
      key_products<kRs, true>(r0, i, k + i * b_.k_row, kKs);
    }
    if (i < n) key_products<kRs, false>(r0, i, k + i * b_.k_row, n - i);
  }

  // Asks for rows that are read after the present tile. K and V take turns, which hardware prefetchers lose track of:
  // 1.4x to 1.6x from memory.
  SPRUN_INLINE static void prefetch(const T* from, int64_t row, int64_t rows, int64_t dim) {
    constexpr int64_t kLine = 64 / sizeof(T);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t d = 0; d < dim; d += kLine) __builtin_prefetch(from + i * row + d);
    }
  }

  // Keys i ... of the tile, of which n exist. Past the last key the last one is computed again.
  template <int kRs, bool kFull>
  SPRUN_INLINE void key_products(int64_t r0, int64_t i, const T* k, int64_t n) {
    constexpr int kKs = kL / kRs;
    V acc[kL];
#pragma GCC unroll 16
    for (int l = 0; l < kL; ++l) acc[l] = V::zero();
    int64_t d = 0;
    const auto add = [&](auto load_q, auto load_k) __attribute__((always_inline)) {
      V q[kRs];
#pragma GCC unroll 4
      for (int r = 0; r < kRs; ++r) q[r] = load_q(b_.q[r0 + r] + d);
#pragma GCC unroll 16
      for (int l = 0; l < kKs; ++l) {
        const V x = load_k(k + (kFull || l < n ? l : n - 1) * b_.k_row + d);
#pragma GCC unroll 4
        for (int r = 0; r < kRs; ++r) acc[r * kKs + l] = V::fma(x, q[r], acc[r * kKs + l]);
      }
    };
    for (; d + kL <= b_.head_dim; d += kL) add(V::load, S::load);
    if (d < b_.head_dim) {
      const int64_t width = b_.head_dim - d;
      add([&](const float* p) __attribute__((always_inline)) { return V::load_partial(p, width); },
          [&](const T* p) __attribute__((always_inline)) { return S::load_partial(p, width); });
    }
    alignas(64) float t[kL];
    simd::row_sums(acc).store(t);
#pragma GCC unroll 4
    for (int r = 0; r < kRs; ++r) {
      __builtin_memcpy(s_ + (r0 + r) * kDecodeTile + i, t + r * kKs, kKs * sizeof(float));
    }
  }

  // True if scales are all that makes scores of the products of a whole tile.
  SPRUN_INLINE bool is_plain(int64_t r, int64_t j) const {
    const bool unchanged = b_.softcap <= 0.0F && b_.mask == nullptr && b_.key_bias[0] == nullptr &&
                           b_.key_bias[1] == nullptr;
    return unchanged && b_.lo[r] <= j && b_.hi[r] >= j + kDecodeTile;
  }

  // Products of row r with a whole tile to scores; returns their maxima and that of earlier ones.
  SPRUN_INLINE V scale_products(int64_t r, int64_t j) {
    const V scale = V::broadcast(b_.scale);
    V top = V::broadcast(max_[r]);
    float* s = s_ + r * kDecodeTile;
#pragma GCC unroll 4
    for (int64_t i = 0; i < kDecodeTile; i += kL) {
      V x = V::load(s + i) * scale;
      if (b_.k_scale != nullptr) x = x * V::load(b_.k_scale + j + i);
      x.store(s + i);
      top = V::max(top, x);
    }
    return top;
  }

  // The same for any products; lanes past the last key get -inf.
  V scores(int64_t r, int64_t j, int64_t n) {
    const V scale = V::broadcast(b_.scale);
    V top = V::broadcast(max_[r]);
    for (int64_t i = 0; i < n; i += kL) {
      const int64_t width = n - i < kL ? n - i : kL;
      float* s = s_ + r * kDecodeTile + i;
      V x = V::load(s) * scale;
      if (b_.k_scale != nullptr) x = x * V::load_partial(b_.k_scale + j + i, width);
      adjust(x, r, j + i, width).store(s);
      const int64_t lo = b_.lo[r] - (j + i), hi = b_.hi[r] - (j + i);
      if (lo > 0 || hi < width) fill_outside(s, lo, hi, width);
      for (int64_t l = width; l < kL; ++l) s[l] = kNegInf;
      top = V::max(top, V::load(s));
    }
    return top;
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

  // p = exp(s - max), times the scales of the values.
  template <bool kFull>
  SPRUN_INLINE void exponentials(int64_t r, int64_t j, int64_t n, V top) {
    float* s = s_ + r * kDecodeTile;
    const V high = V::broadcast(top.reduce_max());
    const V low = safe_max(high);
    const V factor = exp_score(V::broadcast(max_[r]) - low);
    V sum = V::zero();
    const int64_t end = kFull ? kDecodeTile : n;
#pragma GCC unroll 4
    for (int64_t i = 0; i < end; i += kL) {
      V e = exp_score(V::load(s + i) - low);
      sum = sum + e;
      if (b_.v_scale != nullptr) e = e * value_scales<kFull>(j + i, n - i);
      e.store(s + i);
    }
    alignas(64) float t[kL];
    high.store(t);
    max_[r] = t[0];
    factor.store(t);
    factor_[r] = t[0];
    sum_[r] = sum_[r] * factor_[r] + sum.reduce_add();
  }

  template <bool kFull>
  SPRUN_INLINE V value_scales(int64_t j, int64_t n) const {
    return kFull || n >= kL ? V::load(b_.v_scale + j) : V::load_partial(b_.v_scale + j, n);
  }

  // `next`: rows of K to prefetch, or null.
  // O[row, dim] = O * factor + P V for kRs rows and kVs vectors of dims; `width` of the only vector when it is the
  // last.
  template <int kRs, int kVs>
  SPRUN_INLINE void accumulate_tile(const T* value, const T* next, int64_t n, int64_t r0, int64_t d, int64_t width) {
    V acc[kRs][kVs];
#pragma GCC unroll 4
    for (int r = 0; r < kRs; ++r) {
      const V factor = V::broadcast(factor_[r0 + r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVs; ++v) acc[r][v] = V::load(o_ + (r0 + r) * pitch_ + d + v * kL) * factor;
    }
    const float* s = s_ + r0 * kDecodeTile;
    for (int64_t i = 0; i < n; ++i) {
      const T* from = value + i * b_.v_row + d;
      if (next != nullptr) prefetch(next + i * b_.k_row + d, 0, 1, kVs * kL);
      V x[kVs];
#pragma GCC unroll 4
      for (int v = 0; v < kVs; ++v) x[v] = kVs == 1 ? S::load_partial(from, width) : S::load(from + v * kL);
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

  template <int kRs>
  void accumulate_rows(const T* value, const T* next, int64_t n, int64_t r0) {
    constexpr int kVs = kDecodeVecs<A, kRs>;
    int64_t d = 0;
    for (; d + kVs * kL <= b_.v_dim; d += kVs * kL) accumulate_tile<kRs, kVs>(value, next, n, r0, d, kL);
    for (; d < b_.v_dim; d += kL) accumulate_tile<kRs, 1>(value, next, n, r0, d, b_.v_dim - d < kL ? b_.v_dim - d : kL);
  }

  void accumulate(int64_t j, int64_t n) {
    const T* value = v_ + j * b_.v_row;
    // Also past the part: its end is where the next one begins.
    const T* next = j + 2 * kDecodeTile <= b_.key_end ? k_ + (j + kDecodeTile) * b_.k_row : nullptr;
    int64_t r = 0;
    for (; r + 4 <= b_.rows; r += 4) accumulate_rows<4>(value, r == 0 ? next : nullptr, n, r);
    if (r + 2 <= b_.rows) accumulate_rows<2>(value, r == 0 ? next : nullptr, n, r), r += 2;
    if (r < b_.rows) accumulate_rows<1>(value, r == 0 ? next : nullptr, n, r);
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
  const T *k_, *v_;
  int64_t pitch_;
  float* s_;  // [kDecodeRows<A, T>, kDecodeTile]
  float* o_;  // [rows, pitch_]
  float max_[kDecodeRows<A, T>], sum_[kDecodeRows<A, T>], factor_[kDecodeRows<A, T>];
};

template <class A, class T>
void run_decode(const AttentionBlock& block, float* partial, float* scratch) {
  DecodeRunner<A, T>(block, scratch).run(partial);
}

template <class A, class T>
int64_t decode_scratch_floats(int64_t /*head_dim*/, int64_t v_dim) {
  constexpr int64_t kL = F32<A>::kLanes;
  return kDecodeRows<A, T> * (kDecodeTile + (v_dim + kL - 1) / kL * kL);
}

}  // namespace sprun::kernels::attn
