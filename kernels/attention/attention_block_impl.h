// Exact attention of a block of query rows, online softmax over tiles of keys. Query rows are the vector lanes:
//   S^T[key, row] = K[key, :] Q^T      broadcasts elements of K as it lies in memory, any strides
//   P^T = exp(S^T - max)               maxima and sums over keys are plain vector operations
//   O^T[dim, row] += V^T P^T           broadcasts elements of V as it lies in memory
// so nothing but Q (once) and O (once) is ever transposed, and K and V are never copied.
#pragma once

#include <cstdint>

#include "kernels/attention/attention_math.h"
#include "kernels/attention/attention_types.h"
#include "kernels/simd/transpose.h"

namespace sprun::kernels::attn {

// Register tile: kRows keys (or dims) x up to kVecs vectors of query rows.
template <class A>
struct Tile {
  static constexpr int kRows = 4, kVecs = 2;  // SSE2: 8 sums, 2 rows of Q, 1 broadcast of 16 registers
};
template <>
struct Tile<simd::Avx2> {
  static constexpr int kRows = 4, kVecs = 3;  // 12 sums + 3 + 1 of 16
};
template <>
struct Tile<simd::Avx512> {
  static constexpr int kRows = 8, kVecs = 3;  // 24 sums + 3 + 1 of 32
};

inline constexpr int64_t kKeyTile = 64;

// acc[r][v] += sum over i < depth of a[r][i * a_step] * b[i][v], b dense rows of kNv vectors.
template <class V, int kR, int kNv>
SPRUN_INLINE void multiply(const float* const (&a)[kR], int64_t a_step, const float* b, int64_t depth,
                           V (&acc)[kR][kNv]) {
  int64_t at = 0;
  for (int64_t i = 0; i < depth; ++i) {
    V row[kNv];
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) row[v] = V::load(b + v * V::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
      const V x = V::broadcast(a[r][at]);
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v] = V::fma(x, row[v], acc[r][v]);
    }
    at += a_step;
    b += kNv * V::kLanes;
  }
}

template <class A, int kNv>
class BlockRunner {
  using V = F32<A>;
  static constexpr int kL = static_cast<int>(V::kLanes);
  static constexpr int kW = kNv * kL;  // rows of the block, padded
  static constexpr int kR = Tile<A>::kRows;

 public:
  BlockRunner(const AttentionBlock& block, float* scratch) : b_(block) {
    p_ = scratch;
    mask_ = p_ + kKeyTile * kW;
    q_ = mask_ + kKeyTile * kW;
    o_ = q_ + b_.head_dim * kW;
    for (int64_t r = 0; r < kW; ++r) {
      const bool real = r < b_.rows;
      lo_[r] = real ? b_.lo[r] : 0;
      hi_[r] = real ? b_.hi[r] : b_.key_end;
      top_lo_ = lo_[r] > top_lo_ ? lo_[r] : top_lo_;
      low_hi_ = hi_[r] < low_hi_ ? hi_[r] : low_hi_;
    }
  }

  void run() {
    load_queries();
    visit(b_.band_begin, b_.band_end, true);
    if (may_starve_ && starved()) visit(0, b_.key_end, false);
    store_output();
  }

 private:
  void load_queries() {
    const V scale = V::broadcast(b_.scale);
    for (int64_t r0 = 0; r0 < kW; r0 += kL) {
      for (int64_t d0 = 0; d0 < b_.head_dim; d0 += kL) {
        const int64_t n = b_.head_dim - d0 < kL ? b_.head_dim - d0 : kL;
        V t[kL];
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          if (r0 + i >= b_.rows) t[i] = V::zero();
          else t[i] = n == kL ? V::load(b_.q[r0 + i] + d0) : V::load_partial(b_.q[r0 + i] + d0, n);
        }
        simd::transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          if (i < n) (t[i] * scale).store(q_ + (d0 + i) * kW + r0);
        }
      }
    }
  }

  void visit(int64_t begin, int64_t end, bool skip) {
    may_starve_ = skip && b_.fill > kNegInf && (begin > 0 || end < b_.key_end);
    for (int64_t r = 0; r < kW; ++r) {
      const bool sinks = b_.sink != nullptr && r < b_.rows;
      max_[r] = sinks ? b_.sink[r] : kNegInf;
      sum_[r] = sinks ? 1.0F : 0.0F;
    }
    first_ = true;
    for (int64_t j = begin; j < end; j += kKeyTile) {
      const int64_t n = end - j < kKeyTile ? end - j : kKeyTile;
      if (b_.mask != nullptr && !load_mask(j, n) && skip) continue;
      scores(j, n);
      exponentials(n);
      accumulate(j, n);
      first_ = false;
    }
  }

  // A row whose every visited score is the lowest float (or none): the keys left out weigh as much as those.
  bool starved() const {
    for (int64_t r = 0; r < b_.rows; ++r) {
      if (max_[r] <= kLowest) return true;
    }
    return false;
  }

  // Mask elements of keys [j, j + n) as [key, row]. False if they leave no key to any row, lowest floats included.
  bool load_mask(int64_t j, int64_t n) {
    for (int64_t r0 = 0; r0 < kW; r0 += kL) {
      for (int64_t c = 0; c < n; c += kL) {
        V t[kL];
        const int64_t width = n - c < kL ? n - c : kL;
        for (int i = 0; i < kL; ++i) {
          t[i] = r0 + i < b_.rows ? mask_vector(b_.mask[r0 + i], j + c, width) : V::broadcast(kNegInf);
        }
        simd::transpose(t);
        for (int i = 0; i < width; ++i) t[i].store(mask_ + (c + i) * kW + r0);
      }
    }
    V top = V::broadcast(kNegInf);
    for (int64_t i = 0; i < n * kW; i += kL) top = V::max(top, V::load(mask_ + i));
    const float highest = top.reduce_max();
    if (highest > kLowest) return true;
    if (highest == kLowest) may_starve_ = true;
    return false;
  }

  V mask_vector(const void* row, int64_t j, int64_t n) const {
    if (b_.mask_is_bytes) {
      const auto* bytes = static_cast<const uint8_t*>(row);
      const V x = b_.mask_key == 1 ? I32<A>::load_u8_partial(bytes + j, n).to_f32()
                                   : V::broadcast(bytes[j * b_.mask_key] != 0 ? 1.0F : 0.0F);
      return V::select(x == V::zero(), V::broadcast(kNegInf), V::zero());
    }
    const auto* floats = static_cast<const float*>(row);
    if (b_.mask_key == 1) return V::load_partial(floats + j, n);
    if (b_.mask_key == 0) return V::broadcast(floats[0]);
    alignas(64) float t[kL] = {};
    for (int64_t i = 0; i < n; ++i) t[i] = floats[(j + i) * b_.mask_key];
    return V::load(t);
  }

  // Sets the rows' ranges relative to the tile. False if every row sees all of it.
  bool set_band(int64_t j, int64_t n) {
    if (top_lo_ <= j && low_hi_ >= j + n) return false;
    for (int64_t r = 0; r < kW; ++r) {
      const int64_t lo = lo_[r] - j, hi = hi_[r] - j;
      from_[r] = static_cast<float>(lo < 0 ? 0 : lo > n ? n : lo);
      to_[r] = static_cast<float>(hi < 0 ? 0 : hi > n ? n : hi);
    }
    return true;
  }

  void scores(int64_t j, int64_t n) {
    const bool banded = set_band(j, n);
    const bool plain = !banded && b_.mask == nullptr && b_.softcap <= 0.0F;
    V top[kNv];
    for (int v = 0; v < kNv; ++v) top[v] = V::broadcast(kNegInf);
    for (int64_t i = 0; i < n; i += kR) {
      // Past the last key the last one is computed again and dropped.
      const float* k[kR];
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) k[r] = b_.k + (j + (i + r < n ? i + r : n - 1)) * b_.k_row;
      V acc[kR][kNv];
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kNv; ++v) acc[r][v] = V::zero();
      }
      multiply(k, b_.k_dim, q_, b_.head_dim, acc);
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) {
        if (i + r < n) {
          if (plain) add_key_bias(acc[r], j + i + r);
          else adjust(acc[r], j, i + r, banded);
#pragma GCC unroll 4
          for (int v = 0; v < kNv; ++v) {
            top[v] = V::max(top[v], acc[r][v]);
            acc[r][v].store(p_ + (i + r) * kW + v * kL);
          }
        }
      }
    }
    for (int v = 0; v < kNv; ++v) top[v].store(tile_max_ + v * kL);
  }

  SPRUN_INLINE void add_key_bias(V (&s)[kNv], int64_t key) const {
    for (int which = 0; which < 2; ++which) {
      if (b_.key_bias[which] == nullptr) continue;
      const V bias = V::broadcast(b_.key_bias[which][key]);
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) s[v] = s[v] + bias;
    }
  }

  // Soft cap, biases, mask and band of one key of the tile.
  [[gnu::noinline]] void adjust_slow(float* s, int64_t j, int64_t i, bool banded) const {
    const V key = V::broadcast(static_cast<float>(i));
    float bias = 0.0F;
    for (const float* key_bias : b_.key_bias) bias += key_bias != nullptr ? key_bias[j + i] : 0.0F;
    for (int v = 0; v < kNv; ++v) {
      V x = V::load(s + v * kL);
      if (b_.softcap > 0.0F) x = soft_cap(x, b_.softcap);
      x = x + V::broadcast(bias);
      V fill = V::broadcast(b_.fill);
      if (b_.mask != nullptr) {
        const V mask = V::load(mask_ + i * kW + v * kL);
        x = x + mask;
        fill = V::select(mask == V::broadcast(kNegInf), mask, fill);
      }
      if (banded) x = V::select((V::load(from_ + v * kL) <= key) & (key < V::load(to_ + v * kL)), x, fill);
      x.store(s + v * kL);
    }
  }

  SPRUN_INLINE void adjust(V (&s)[kNv], int64_t j, int64_t i, bool banded) const {
    alignas(64) float t[kW];
    for (int v = 0; v < kNv; ++v) s[v].store(t + v * kL);
    adjust_slow(t, j, i, banded);
    for (int v = 0; v < kNv; ++v) s[v] = V::load(t + v * kL);
  }

  // p = exp(s - max), the factor that brings earlier sums to the new maximum, and the new sums.
  void exponentials(int64_t n) {
    V low[kNv], sum[kNv];
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) {
      const V old = V::load(max_ + v * kL);
      const V top = V::max(old, V::load(tile_max_ + v * kL));
      low[v] = safe_max(top);
      const V factor = exp_score(old - low[v]);
      top.store(max_ + v * kL);
      factor.store(factor_ + v * kL);
      sum[v] = V::load(sum_ + v * kL) * factor;
    }
    float* p = p_;
    for (int64_t i = 0; i < n; ++i, p += kW) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) {
        const V e = exp_score(V::load(p + v * kL) - low[v]);
        sum[v] = sum[v] + e;
        e.store(p + v * kL);
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) sum[v].store(sum_ + v * kL);
  }

  template <int kDims>
  SPRUN_INLINE void accumulate_dims(const float* value, int64_t d, int64_t n) {
    const float* a[kDims];
    V acc[kDims][kNv];
    float* o = o_ + d * kW;
#pragma GCC unroll 8
    for (int r = 0; r < kDims; ++r) {
      a[r] = value + d + r;
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) {
        acc[r][v] = first_ ? V::zero() : V::load(o + r * kW + v * kL) * V::load(factor_ + v * kL);
      }
    }
    multiply(a, b_.v_row, p_, n, acc);
#pragma GCC unroll 8
    for (int r = 0; r < kDims; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v].store(o + r * kW + v * kL);
    }
  }

  void accumulate(int64_t j, int64_t n) {
    const float* value = b_.v + j * b_.v_row;
    int64_t d = 0;
    for (; d + kR <= b_.v_dim; d += kR) accumulate_dims<kR>(value, d, n);
    for (; d < b_.v_dim; ++d) accumulate_dims<1>(value, d, n);
  }

  void store_output() {
    if (first_) return store_zeros();
    for (int64_t r0 = 0; r0 < b_.rows; r0 += kL) {
      const V sum = V::load(sum_ + r0);
      const V inverse = V::select(sum == V::zero(), V::zero(), V::broadcast(1.0F) / sum);
      for (int64_t d0 = 0; d0 < b_.v_dim; d0 += kL) {
        const int64_t n = b_.v_dim - d0 < kL ? b_.v_dim - d0 : kL;
        V t[kL];
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) t[i] = i < n ? V::load(o_ + (d0 + i) * kW + r0) * inverse : V::zero();
        simd::transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          if (r0 + i >= b_.rows) continue;
          if (n == kL) t[i].store(b_.out[r0 + i] + d0);
          else t[i].store_partial(b_.out[r0 + i] + d0, n);
        }
      }
    }
  }

  void store_zeros() {
    for (int64_t r = 0; r < b_.rows; ++r) {
      for (int64_t d = 0; d < b_.v_dim; ++d) b_.out[r][d] = 0.0F;
    }
  }

  const AttentionBlock& b_;
  float *p_, *mask_;  // [kKeyTile, kW]
  float* q_;          // [head_dim, kW]
  float* o_;          // [v_dim, kW]
  bool first_ = true, may_starve_ = false;
  int64_t top_lo_ = 0, low_hi_ = b_.key_end;
  int64_t lo_[kW], hi_[kW];
  alignas(64) float max_[kW], sum_[kW], tile_max_[kW], factor_[kW], from_[kW], to_[kW];
};

template <class A>
void run_block(const AttentionBlock& block, float* scratch) {
  constexpr int64_t kL = F32<A>::kLanes;
  if (block.rows <= kL) return BlockRunner<A, 1>(block, scratch).run();
  if constexpr (Tile<A>::kVecs >= 3) {
    if (block.rows > 2 * kL) return BlockRunner<A, 3>(block, scratch).run();
  }
  BlockRunner<A, 2>(block, scratch).run();
}

template <class A>
int64_t block_scratch_floats(int64_t head_dim, int64_t v_dim) {
  return (2 * kKeyTile + head_dim + v_dim) * Tile<A>::kVecs * F32<A>::kLanes;
}

}  // namespace sprun::kernels::attn
