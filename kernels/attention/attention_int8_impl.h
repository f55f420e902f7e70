// Integer attention of a block of query rows, which are the vector lanes; four terms of a sum share a lane:
//   S^T[key, row] = K[key, 4i : 4i+4] Q^T         O^T[dim, row] = V[4j : 4j+4, dim] P^T
// Codes of the softmax need each row's whole sum, so all scores of the block are kept. Zero points are taken out by
// sums of codes: sum (q - zq)(k - zk) = sum q k - zq sum k - zk sum q + D zq zk, and alike for P and V; int32 wraps
// around on the way and is right at the end.
#pragma once

#include <cstdint>

#include "kernels/attention/attention_int8_types.h"
#include "kernels/attention/attention_math.h"
#include "kernels/simd/dot4.h"
#include "kernels/simd/interleave.h"
#include "kernels/simd/quantize.h"
#include "kernels/simd/transpose.h"

namespace sprun::kernels::attn {

// Register tile: kRows keys (or dims) x up to kVecs vectors of query rows.
template <class A>
struct Int8Tile {
  static constexpr int kRows = 4, kVecs = 1;  // operands in two halves: 4 sums, 4 of codes of 16 registers
};
template <>
struct Int8Tile<simd::AvxVnni> {
  static constexpr int kRows = 4, kVecs = 3;  // 12 sums + 3 + 1 of 16
};
template <>
struct Int8Tile<simd::Avx512> {
  static constexpr int kRows = 8, kVecs = 2;  // operands in two halves: 16 sums, 6 of codes of 32
};
template <>
struct Int8Tile<simd::Avx512Vnni> {
  static constexpr int kRows = 8, kVecs = 3;  // 24 sums + 3 + 1 of 32
};

// Pieces of scratch; sizes in dwords, multiples of 16.
template <class A>
struct Int8Scratch {
  static constexpr int64_t kL = I32<simd::VecArch<A>>::kLanes;
  static constexpr int64_t kWidest = Int8Tile<A>::kVecs * kL;
  int64_t k_quads, v_pitch, key_quads;
  int32_t *k, *key_term, *v, *dim_term, *q, *p_codes;
  float *p, *o;
  int64_t dwords;

  SPRUN_INLINE static int64_t whole(int64_t n) { return (n + 15) / 16 * 16; }

  SPRUN_INLINE Int8Scratch(int64_t head_dim, int64_t v_dim, int64_t keys, char* base)
      : k_quads((head_dim + 3) / 4), v_pitch(whole(v_dim)), key_quads((keys + 3) / 4) {
    auto* at = reinterpret_cast<int32_t*>(base);
    int64_t used = 0;
    const auto take = [&](int64_t n) {
      int32_t* piece = base ? at + used : nullptr;
      used += whole(n);
      return piece;
    };
    k = take(keys * k_quads);
    key_term = take(keys);
    v = take(key_quads * v_pitch);
    dim_term = take(v_pitch);
    q = take(whole(k_quads) * kWidest);
    p_codes = take(key_quads * kWidest);
    p = reinterpret_cast<float*>(take((keys + Int8Tile<A>::kRows + 3) * kWidest));
    o = reinterpret_cast<float*>(take(v_dim * kWidest));
    dwords = used;
  }
};

// Bytes [i, i + 4 * lanes) of a row of n, flipped, 0 past its end; as dwords.
template <class A>
SPRUN_INLINE I32<simd::VecArch<A>> code_quads(const uint8_t* row, int64_t n, int64_t i, uint8_t flip) {
  using I = I32<simd::VecArch<A>>;
  const I flips = I::broadcast(static_cast<int32_t>(flip * 0x01010101U));
  if (i + 4 * I::kLanes <= n) return I::load(reinterpret_cast<const int32_t*>(row + i)) ^ flips;
  alignas(64) uint8_t t[4 * I::kLanes] = {};
  for (int64_t b = 0; i + b < n; ++b) t[b] = static_cast<uint8_t>(row[i + b] ^ flip);
  return I::load(reinterpret_cast<const int32_t*>(t));
}

// Sums of the four bytes of each dword: u8, and s8.
template <class A>
SPRUN_INLINE auto sum_u8(I32<simd::VecArch<A>> sum, I32<simd::VecArch<A>> quads) {
  using D = simd::Dot4<A>;
  return D::add(sum, D::from_u8(quads.v), D::broadcast_s8(0x01010101));
}
template <class A>
SPRUN_INLINE auto sum_s8(I32<simd::VecArch<A>> sum, I32<simd::VecArch<A>> quads) {
  using D = simd::Dot4<A>;
  return D::add(sum, D::broadcast(0x01010101), D::from_s8(quads.v));
}

// Codes [d, d + n) of keys j .. j + 3, a key a byte; flipped, and 0 past the last key.
template <class A>
SPRUN_INLINE I32<simd::VecArch<A>> value_quads(const AttentionInt8Block& b, int64_t j, int64_t d, int64_t n) {
  using I = I32<simd::VecArch<A>>;
  const uint8_t* row = b.v + j * b.v_row + d;
  const I flips = I::broadcast(static_cast<int32_t>(b.v_flip * 0x01010101U));
  if (j + 4 <= b.keys && n == I::kLanes) {
    const I low = I::load_u8(row) | I::load_u8(row + b.v_row).template shl<8>();
    const I high = I::load_u8(row + 2 * b.v_row) | I::load_u8(row + 3 * b.v_row).template shl<8>();
    return (low | high.template shl<16>()) ^ flips;
  }
  alignas(64) uint8_t t[4 * I::kLanes] = {};
  for (int64_t i = 0; i < 4 && j + i < b.keys; ++i) {
    for (int64_t c = 0; c < n; ++c) t[4 * c + i] = static_cast<uint8_t>(row[i * b.v_row + c] ^ b.v_flip);
  }
  return I::load(reinterpret_cast<const int32_t*>(t));
}

template <class A>
SPRUN_INLINE void load_int8_values(const AttentionInt8Block& b, const Int8Scratch<A>& s) {
  using I = I32<simd::VecArch<A>>;
  for (int64_t d = 0; d < b.v_dim; d += I::kLanes) {
    const int64_t n = b.v_dim - d < I::kLanes ? b.v_dim - d : I::kLanes;
    I sum = I::zero();
    int32_t* to = s.v + d;
    for (int64_t j = 0; j < b.keys; j += 4, to += s.v_pitch) {
      const I quads = value_quads<A>(b, j, d, n);
      quads.store(to);
      sum = sum_s8<A>(sum, quads);
    }
    const auto keys = static_cast<int32_t>(b.keys);
    (I::broadcast(keys * b.p_zero * b.v_zero) - I::broadcast(b.p_zero) * sum).store(s.dim_term + d);
  }
}

template <class A>
void load_int8_keys(const AttentionInt8Block& b, char* scratch) {
  using I = I32<simd::VecArch<A>>;
  const Int8Scratch<A> s(b.head_dim, b.v_dim, b.keys, scratch);
  for (int64_t j = 0; j < b.keys; ++j) {
    const uint8_t* key = b.k + j * b.k_row;
    int32_t* to = s.k + j * s.k_quads;
    I sum = I::zero();
    if (b.k_dim == 1) {
      for (int64_t i = 0; i < s.k_quads; i += I::kLanes) {
        const I quads = code_quads<A>(key, b.head_dim, 4 * i, b.k_flip);
        const int64_t n = s.k_quads - i;
        if (n >= I::kLanes) quads.store(to + i);
        else quads.store_partial(to + i, n);
        sum = sum_s8<A>(sum, quads);
      }
    }
    int32_t total = sum.reduce_add();
    for (int64_t d = 0; b.k_dim != 1 && d < 4 * s.k_quads; ++d) {
      const uint8_t code = d < b.head_dim ? static_cast<uint8_t>(key[d * b.k_dim] ^ b.k_flip) : uint8_t{0};
      reinterpret_cast<uint8_t*>(to)[d] = code;
      total += static_cast<int8_t>(code);
    }
    s.key_term[j] = -b.q_zero * total;
  }
  load_int8_values<A>(b, s);
}

template <class A, int kNv>
class Int8Runner {
  using B = simd::VecArch<A>;
  using V = F32<B>;
  using I = I32<B>;
  using D = simd::Dot4<A>;
  static constexpr int kL = static_cast<int>(V::kLanes);
  static constexpr int kW = kNv * kL;
  static constexpr int kR = Int8Tile<A>::kRows;

 public:
  Int8Runner(const AttentionInt8Block& block, char* scratch)
      : b_(block), s_(block.head_dim, block.v_dim, block.keys, scratch) {}

  void run() {
    load_queries();
    scores();
    exponentials();
    quantise();
    int64_t d = 0;
    for (; d + kR <= b_.v_dim; d += kR) weighted_sums<kR>(d);
    for (; d < b_.v_dim; ++d) weighted_sums<1>(d);
    store_output();
  }

 private:
  void load_queries() {
    const auto dims = static_cast<int32_t>(b_.head_dim);
    for (int64_t r0 = 0; r0 < kW; r0 += kL) {
      I sum = I::zero();
      for (int64_t i0 = 0; i0 < s_.k_quads; i0 += kL) {
        V t[kL];
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          t[i] = V::zero();
          if (r0 + i < b_.rows) t[i] = code_quads<A>(b_.q[r0 + i], b_.head_dim, 4 * i0, b_.q_flip).as_f32();
        }
        simd::transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          const I quads = I::as_i32(t[i]);
          quads.store(s_.q + (i0 + i) * kW + r0);
          sum = sum_u8<A>(sum, quads);
        }
      }
      (I::broadcast(dims * b_.q_zero * b_.k_zero) - I::broadcast(b_.k_zero) * sum).store(row_term_ + r0);
    }
  }

  // acc[r][v] += sum over quads i of a[r][i * a_step] and b[i][v].
  template <int kRs>
  SPRUN_INLINE static void multiply(const int32_t* const (&a)[kRs], int64_t a_step, const int32_t* b, int64_t quads,
                                    I (&acc)[kRs][kNv]) {
    int64_t at = 0;
    for (int64_t i = 0; i < quads; ++i) {
      typename D::A row[kNv];
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) row[v] = D::split_u8(I::load(b + v * kL).v);
#pragma GCC unroll 8
      for (int r = 0; r < kRs; ++r) {
        const typename D::B x = D::broadcast_s8(a[r][at]);
#pragma GCC unroll 4
        for (int v = 0; v < kNv; ++v) D::accumulate(acc[r][v], row[v], x);
      }
      at += a_step;
      b += kW;
    }
  }

  // Scores into s_.p, their maxima into top_. Past the last key the last one is computed again: no maximum moves.
  void scores() {
    const V scale = V::broadcast(b_.score_scale);
    V top[kNv];
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) {
      top[v] = V::broadcast(kNegInf);
      top[v].store(top_ + v * kL);
    }
    for (int64_t j = 0; j < b_.keys; j += kR) {
      const int32_t* k[kR];
      I acc[kR][kNv];
      alignas(64) float bias[kR];
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) {
        const int64_t key = j + r < b_.keys ? j + r : b_.keys - 1;
        k[r] = s_.k + key * s_.k_quads;
        bias[r] = b_.key_bias ? b_.key_bias[key] : 0.0F;
        const I term = I::broadcast(s_.key_term[key]);
#pragma GCC unroll 4
        for (int v = 0; v < kNv; ++v) acc[r][v] = I::load(row_term_ + v * kL) + term;
      }
      multiply(k, 1, s_.q, s_.k_quads, acc);
      float* p = s_.p + j * kW;
#pragma GCC unroll 8
      for (int r = 0; r < kR; ++r) {
        const V add = V::broadcast(bias[r]);
#pragma GCC unroll 4
        for (int v = 0; v < kNv; ++v) {
          const V x = V::fma(acc[r][v].to_f32(), scale, add);
          top[v] = V::max(top[v], x);
          x.store(p + r * kW + v * kL);
        }
      }
      if (b_.mask) add_mask(j, j + kR < b_.keys ? j + kR : b_.keys);
    }
    if (b_.mask) return;
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) top[v].store(top_ + v * kL);
  }

  [[gnu::noinline]] void add_mask(int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      alignas(64) float t[kW] = {};
      for (int64_t r = 0; r < b_.rows; ++r) {
        const int64_t at = j * b_.mask_key;
        if (!b_.mask_is_bytes) t[r] = static_cast<const float*>(b_.mask[r])[at];
        else if (static_cast<const uint8_t*>(b_.mask[r])[at] == 0) t[r] = kNegInf;
      }
      for (int64_t c = 0; c < kW; c += kL) {
        const V x = V::load(s_.p + j * kW + c) + V::load(t + c);
        x.store(s_.p + j * kW + c);
        V::max(V::load(top_ + c), x).store(top_ + c);
      }
    }
  }

  // p = exp(s - max), and the factor that makes codes of it.
  void exponentials() {
    V low[kNv], sum[kNv];
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) {
      low[v] = safe_max<B>(V::load(top_ + v * kL));
      sum[v] = V::zero();
    }
    float* p = s_.p;
    for (int64_t j = 0; j < b_.keys; ++j, p += kW) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) {
        const V e = exp_score<B>(V::load(p + v * kL) - low[v]);
        sum[v] = sum[v] + e;
        e.store(p + v * kL);
      }
    }
    // Up to a whole quad of keys that weigh nothing.
    for (int64_t i = 0; i < (4 * s_.key_quads - b_.keys) * kW; i += kL) V::zero().store(p + i);
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) {
      const V one = V::broadcast(1.0F);
      V::select(sum[v] == V::zero(), V::zero(), one / sum[v]).store(inverse_ + v * kL);
    }
  }

  // Codes of the softmax in quads of keys. The missing keys of the last quad have codes too; their values are 0.
  void quantise() {
    using S = simd::Interleave<B>;
    const V scale = V::broadcast(b_.p_inverse);
    const simd::ToU8<B> to_u8(1.0F, b_.p_zero);
    V inverse[kNv];
    I sum[kNv];
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) {
      inverse[v] = V::load(inverse_ + v * kL);
      sum[v] = I::zero();
    }
    const float* p = s_.p;
    int32_t* to = s_.p_codes;
    for (int64_t j = 0; j < s_.key_quads; ++j, p += 4 * kW, to += kW) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) {
        V x[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) x[i] = V::load(p + i * kW + v * kL) * inverse[v] * scale;
        const I quad = {S::turn4(to_u8.rounded(x))};
        quad.store(to + v * kL);
        sum[v] = sum_u8<A>(sum[v], quad);
      }
    }
    // The sum over missing keys is that of codes of 0.
    const auto missing = static_cast<int32_t>(4 * s_.key_quads - b_.keys);
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) {
      const I real = sum[v] - I::broadcast(missing * b_.p_zero);
      (I::zero() - I::broadcast(b_.v_zero) * real).store(row_term_ + v * kL);
    }
  }

  template <int kDims>
  SPRUN_INLINE void weighted_sums(int64_t d) {
    const int32_t* a[kDims];
    I acc[kDims][kNv];
#pragma GCC unroll 8
    for (int r = 0; r < kDims; ++r) {
      a[r] = s_.v + d + r;
      const I term = I::broadcast(s_.dim_term[d + r]);
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v] = I::load(row_term_ + v * kL) + term;
    }
    multiply(a, s_.v_pitch, s_.p_codes, s_.key_quads, acc);
    const V scale = V::broadcast(b_.out_scale);
#pragma GCC unroll 8
    for (int r = 0; r < kDims; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) (acc[r][v].to_f32() * scale).store(s_.o + (d + r) * kW + v * kL);
    }
  }

  // Codes of results: four dims of a row become a dword, and 16 dwords of 16 rows are turned around together.
  void store_codes() const {
    using S = simd::Interleave<B>;
    constexpr int64_t kDims = 4 * kL;
    const simd::ToU8<B> to_u8(1.0F, b_.y_zero);
    const V inverse = V::broadcast(b_.y_inverse);
    const I flip = I::broadcast(static_cast<int32_t>(b_.y_flip * 0x01010101U));
    for (int64_t r0 = 0; r0 < b_.rows; r0 += kL) {
      for (int64_t d0 = 0; d0 < b_.v_dim; d0 += kDims) {
        const int64_t n = b_.v_dim - d0 < kDims ? b_.v_dim - d0 : kDims;
        V t[kL];
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          V x[4];
#pragma GCC unroll 4
          for (int e = 0; e < 4; ++e) {
            x[e] = 4 * i + e < n ? V::load(s_.o + (d0 + 4 * i + e) * kW + r0) * inverse : V::zero();
          }
          t[i] = (I{S::turn4(to_u8.rounded(x))} ^ flip).as_f32();
        }
        simd::transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          if (r0 + i >= b_.rows) continue;
          char* to = static_cast<char*>(b_.out[r0 + i]) + d0;
          if (n == kDims) I::as_i32(t[i]).store(reinterpret_cast<int32_t*>(to));
          else store_bytes(I::as_i32(t[i]), to, n);
        }
      }
    }
  }

  SPRUN_INLINE static void store_bytes(I codes, char* to, int64_t n) {
    alignas(64) char bytes[4 * kL];
    codes.store(reinterpret_cast<int32_t*>(bytes));
    __builtin_memcpy(to, bytes, static_cast<size_t>(n));
  }

  void store_output() const {
    if (b_.requantise) return store_codes();
    for (int64_t r0 = 0; r0 < b_.rows; r0 += kL) {
      for (int64_t d0 = 0; d0 < b_.v_dim; d0 += kL) {
        const int64_t n = b_.v_dim - d0 < kL ? b_.v_dim - d0 : kL;
        V t[kL];
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) t[i] = i < n ? V::load(s_.o + (d0 + i) * kW + r0) : V::zero();
        simd::transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          if (r0 + i >= b_.rows) continue;
          t[i].store_partial(static_cast<float*>(b_.out[r0 + i]) + d0, n);
        }
      }
    }
  }

  const AttentionInt8Block& b_;
  const Int8Scratch<A> s_;
  alignas(64) float top_[kW], inverse_[kW];
  alignas(64) int32_t row_term_[kW];
};

template <class A>
void run_int8_block(const AttentionInt8Block& block, char* scratch) {
  constexpr int64_t kL = I32<simd::VecArch<A>>::kLanes;
  constexpr int kVecs = Int8Tile<A>::kVecs;
  if (block.rows <= kL) return Int8Runner<A, 1>(block, scratch).run();
  if constexpr (kVecs >= 3) {
    if (block.rows > 2 * kL) return Int8Runner<A, 3>(block, scratch).run();
  }
  if constexpr (kVecs >= 2) Int8Runner<A, 2>(block, scratch).run();
}

template <class A>
int64_t int8_scratch_bytes(int64_t head_dim, int64_t v_dim, int64_t keys) {
  return Int8Scratch<A>(head_dim, v_dim, keys, nullptr).dwords * 4;
}

template <class A>
inline constexpr AttentionInt8Kernel kInt8Attention = {
    .max_rows = I32<simd::VecArch<A>>::kLanes * Int8Tile<A>::kVecs,
    .load = load_int8_keys<A>,
    .run = run_int8_block<A>,
    .scratch_bytes = int8_scratch_bytes<A>,
};

}  // namespace sprun::kernels::attn
