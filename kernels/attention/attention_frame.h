// What attention of a block of query rows has in common, whatever type its products have: masks, bands, the maxima and
// sums of the online softmax over tiles of keys, and the output. Query rows are the vector lanes, so that maxima and
// sums over keys are plain vector operations:
//   S^T[key, row] = K Q^T,   P^T = exp(S^T - max),   O^T[dim, row] += V^T P^T
#pragma once

#include <cstdint>

#include "kernels/attention/attention_math.h"
#include "kernels/attention/attention_types.h"
#include "kernels/simd/transpose.h"

namespace sprun::kernels::attn {

// Register tile: kRows keys (or dims) x up to kVecs vectors of query rows. kKeys keys are worked on at a time.
template <class A>
struct Tile {
  static constexpr int kRows = 4, kVecs = 2, kKeys = 64;  // SSE2: 8 sums, 2 rows of Q, 1 broadcast of 16 registers
};
template <>
struct Tile<simd::Avx2> {
  static constexpr int kRows = 4, kVecs = 3, kKeys = 64;  // 12 sums + 3 + 1 of 16
};
template <>
struct Tile<simd::Avx512> {
  static constexpr int kRows = 8, kVecs = 3, kKeys = 64;  // 24 sums + 3 + 1 of 32
};
template <>
struct Tile<simd::Avx512Bf16> {
  static constexpr int kRows = 8, kVecs = 3, kKeys = 128;  // half the bytes a key, so twice the keys
};

// Derived has
//   kKeyGroup                                  tiles begin at multiples of it
//   void load_queries()                        Q times the scale, as its products take it
//   void begin_keys(j, n)                      called before the products of keys j .. j + n (default: nothing)
//   void multiply_keys(j, i, n, V (&s)[kR][kNv])   scores of keys i .. i + kR of the tile; past n any
//   void exponentials(n)                       p = exp(s - max) of the tile; max_, factor_ and sum_ move on
//   void accumulate(j, n)                      O^T = O^T * factor_ + V^T P^T, only the product when first_
template <class A, int kNv, class Derived>
class BlockFrame {
 protected:
  using V = F32<simd::VecArch<A>>;
  using I = I32<simd::VecArch<A>>;
  static constexpr int kL = static_cast<int>(V::kLanes);
  static constexpr int kW = kNv * kL;  // rows of the block, padded
  static constexpr int kR = Tile<A>::kRows;
  static constexpr int64_t kKeyTile = Tile<A>::kKeys;

 public:
  // scratch: frame_floats().
  BlockFrame(const AttentionBlock& block, float* scratch) : b_(block) {
    p_ = scratch;
    mask_ = p_ + kKeyTile * kW;
    o_ = mask_ + kKeyTile * kW;
    for (int64_t r = 0; r < kW; ++r) {
      const bool real = r < b_.rows;
      lo_[r] = real ? b_.lo[r] : 0;
      hi_[r] = real ? b_.hi[r] : b_.key_end;
      top_lo_ = lo_[r] > top_lo_ ? lo_[r] : top_lo_;
      low_hi_ = hi_[r] < low_hi_ ? hi_[r] : low_hi_;
    }
  }

  void run(float* partial) {
    self().load_queries();
    visit(b_.band_begin, b_.band_end, true);
    if (may_starve_ && starved()) {  // keys outside of the band only matter if they get a finite score
      const bool fills = b_.fill > kNegInf;
      visit(fills ? 0 : b_.band_begin, fills ? b_.key_end : b_.band_end, false);
    }
    if (partial != nullptr) store_state(partial);
    else store_output();
  }

 protected:
  Derived& self() { return static_cast<Derived&>(*this); }
  SPRUN_INLINE void begin_keys(int64_t /*j*/, int64_t /*n*/) {}

  void visit(int64_t begin, int64_t end, bool skip) {
    may_starve_ = skip && b_.fill > kNegInf && (begin > 0 || end < b_.key_end);
    for (int64_t r = 0; r < kW; ++r) {
      const bool sinks = b_.sink != nullptr && r < b_.rows;
      max_[r] = sinks ? b_.sink[r] : kNegInf;
      sum_[r] = sinks ? 1.0F : 0.0F;
    }
    first_ = true;
    for (int64_t j = begin / Derived::kKeyGroup * Derived::kKeyGroup; j < end; j += kKeyTile) {
      const int64_t n = end - j < kKeyTile ? end - j : kKeyTile;
      if (b_.mask != nullptr && !load_mask(j, n) && skip) continue;
      self().begin_keys(j, n);
      scores(j, n);
      self().exponentials(n);
      self().accumulate(j, n);
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
      const V x = b_.mask_key == 1 ? I::load_u8_partial(bytes + j, n).to_f32()
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

  // Scores of the tile into p_, their maxima into tile_max_. Keys past the last are the last one again: no maximum moves.
  void scores(int64_t j, int64_t n) {
    const bool banded = set_band(j, n);
    const bool plain = !banded && b_.mask == nullptr && b_.softcap <= 0.0F;
    set_key_bias(j, n);
    V top[kNv];
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) {
      top[v] = V::broadcast(kNegInf);
      top[v].store(tile_max_ + v * kL);
    }
    for (int64_t i = 0; i < n; i += kR) {
      V acc[kR][kNv];
      self().multiply_keys(j, i, n, acc);
      float* p = p_ + i * kW;
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) {
        const V bias = V::broadcast(key_bias_[i + r]);
#pragma GCC unroll 4
        for (int v = 0; v < kNv; ++v) {
          if (plain) acc[r][v] = acc[r][v] + bias;
          top[v] = V::max(top[v], acc[r][v]);
          acc[r][v].store(p + r * kW + v * kL);
        }
      }
      if (!plain) adjust(i, i + kR < n ? i + kR : n, banded);
    }
    if (!plain) return;
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) top[v].store(tile_max_ + v * kL);
  }

  void set_key_bias(int64_t j, int64_t n) {
    for (int64_t i = 0; i < (n + kR - 1) / kR * kR; ++i) {
      const int64_t key = j + (i < n ? i : n - 1);
      key_bias_[i] = 0.0F;
      for (const float* bias : b_.key_bias) key_bias_[i] += bias != nullptr ? bias[key] : 0.0F;
    }
  }

  // Soft cap, biases, mask and band of keys [begin, end) of the tile, whose products are in p_.
  [[gnu::noinline]] void adjust(int64_t begin, int64_t end, bool banded) {
    for (int64_t i = begin; i < end; ++i) {
      const V key = V::broadcast(static_cast<float>(i));
      for (int64_t c = 0; c < kW; c += kL) {
        V x = V::load(p_ + i * kW + c);
        if (b_.softcap > 0.0F) x = soft_cap<simd::VecArch<A>>(x, b_.softcap);
        x = x + V::broadcast(key_bias_[i]);
        V fill = V::broadcast(b_.fill);
        if (b_.mask != nullptr) {
          const V mask = V::load(mask_ + i * kW + c);
          x = x + mask;
          fill = V::select(mask == V::broadcast(kNegInf), mask, fill);
        }
        if (banded) x = V::select((V::load(from_ + c) <= key) & (key < V::load(to_ + c)), x, fill);
        x.store(p_ + i * kW + c);
        V::max(V::load(tile_max_ + c), x).store(tile_max_ + c);
      }
    }
  }

  // Maxima and the factors that bring earlier sums to them: `low` is what the tile's scores are lowered by.
  SPRUN_INLINE void raise_maxima(V (&low)[kNv], V (&sum)[kNv]) {
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) {
      const V old = V::load(max_ + v * kL);
      const V top = V::max(old, V::load(tile_max_ + v * kL));
      low[v] = safe_max<simd::VecArch<A>>(top);
      const V factor = exp_score<simd::VecArch<A>>(old - low[v]);
      top.store(max_ + v * kL);
      factor.store(factor_ + v * kL);
      sum[v] = V::load(sum_ + v * kL) * factor;
    }
  }

  SPRUN_INLINE void store_sums(const V (&sum)[kNv]) {
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) sum[v].store(sum_ + v * kL);
  }

  void store_output() {
    for (int64_t r0 = 0; r0 < b_.rows; r0 += kL) {
      const V sum = V::load(sum_ + r0);
      store_rows(r0, V::select(sum == V::zero(), V::zero(), V::broadcast(1.0F) / sum), b_.out + r0);
    }
  }

  void store_state(float* partial) {
    const int64_t pitch = b_.v_dim + 2;
    for (int64_t r0 = 0; r0 < b_.rows; r0 += kL) {
      float* rows[kL];
      for (int64_t i = 0; i < kL; ++i) rows[i] = partial + (r0 + i) * pitch;
      store_rows(r0, V::broadcast(1.0F), rows);
    }
    for (int64_t r = 0; r < b_.rows; ++r) {
      partial[r * pitch + b_.v_dim] = max_[r];
      partial[r * pitch + b_.v_dim + 1] = sum_[r];
    }
  }

  // O times `factor` of rows r0 .. r0 + kL, as far as they exist, to rows[0], rows[1], ...
  void store_rows(int64_t r0, V factor, float* const* rows) {
    const int64_t n = b_.rows - r0 < kL ? b_.rows - r0 : kL;
    for (int64_t d0 = 0; d0 < b_.v_dim; d0 += kL) {
      const int64_t width = b_.v_dim - d0 < kL ? b_.v_dim - d0 : kL;
      V t[kL];
#pragma GCC unroll 16
      for (int i = 0; i < kL; ++i) {
        t[i] = i < width && !first_ ? V::load(o_ + (d0 + i) * kW + r0) * factor : V::zero();
      }
      simd::transpose(t);
#pragma GCC unroll 16
      for (int i = 0; i < kL; ++i) {
        if (i >= n) continue;
        if (width == kL) t[i].store(rows[i] + d0);
        else t[i].store_partial(rows[i] + d0, width);
      }
    }
  }

  const AttentionBlock& b_;
  float *p_, *mask_;  // [kKeyTile, kW]
  float* o_;          // [v_dim, kW]
  bool first_ = true, may_starve_ = false;
  int64_t top_lo_ = 0, low_hi_ = b_.key_end;
  int64_t lo_[kW], hi_[kW];
  alignas(64) float max_[kW], sum_[kW], tile_max_[kW], factor_[kW], from_[kW], to_[kW];
  float key_bias_[kKeyTile];  // of the tile
};

template <class A>
int64_t frame_floats(int64_t v_dim) {
  return (2 * Tile<A>::kKeys + v_dim) * Tile<A>::kVecs * F32<simd::VecArch<A>>::kLanes;
}

// Runs the Runner of as many vectors as the rows need.
template <class A, template <class, int> class Runner>
SPRUN_INLINE void run_with_vectors(const AttentionBlock& block, float* partial, float* scratch) {
  constexpr int64_t kL = F32<simd::VecArch<A>>::kLanes;
  if (block.rows <= kL) return Runner<A, 1>(block, scratch).run(partial);
  if constexpr (Tile<A>::kVecs >= 3) {
    if (block.rows > 2 * kL) return Runner<A, 3>(block, scratch).run(partial);
  }
  Runner<A, 2>(block, scratch).run(partial);
}

}  // namespace sprun::kernels::attn
