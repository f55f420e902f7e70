// Attention of a block of query rows with bf16 inputs of both products (Q, K, exp(S - max) and V rounded to nearest
// even, denormals as 0); sums, scores and softmax are f32. Query rows are the vector lanes, two terms of a sum share a
// lane:
//   S^T[key, row] = K[key, 2i : 2i+2] Q^T        O^T[dim, row] += V[2j : 2j+2, dim] P^T
// K and V are rounded once per head, Q once per block, P when its exponentials are made.
#pragma once

#include "kernels/attention/attention_frame.h"
#include "kernels/simd/dot2.h"

namespace sprun::kernels::attn {

// Pairs of bf16, and the instruction that sums their products. g++ 12 copies every accumulator around the intrinsic in
// loops over arrays of them, which halves the speed; inline assembly keeps them in their registers.
struct Bf16Pairs {
  using V = F32<simd::Avx512>;
  using Raw = __m512i;
  SPRUN_INLINE static Raw broadcast(const uint32_t* p) { return _mm512_set1_epi32(static_cast<int32_t>(*p)); }
  SPRUN_INLINE static Raw load(const uint32_t* p) { return _mm512_loadu_si512(p); }
  SPRUN_INLINE static void store(uint32_t* p, Raw pairs) { _mm512_storeu_si512(p, pairs); }
  SPRUN_INLINE static void accumulate(V& acc, Raw a, Raw b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(acc.v) : "v"(a), "v"(b));
  }
  // Lane i of the result: elements 2i and 2i + 1 of the 32 in (low, high).
  SPRUN_INLINE static Raw neighbours(V low, V high) {
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high.v, low.v));
  }
  // Lane i of the result: first[i], second[i].
  SPRUN_INLINE static Raw zipped(V first, V second) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, neighbours(first, second));
  }
};

// The keys and values of a head as pairs, in scratch: keys [keys, k_pitch] along the head, values [keys / 2, v_pitch]
// along keys. Pitches are whole vectors; what is past a row's end or the last key is 0.
template <class A>
struct Bf16Keys {
  using V = F32<simd::VecArch<A>>;
  static constexpr int64_t kL = V::kLanes;
  static constexpr int64_t kAhead = 8;  // rows lie far apart, which no hardware prefetcher follows
  int64_t k_pitch, v_pitch;
  uint32_t *k, *v;

  SPRUN_INLINE static int64_t k_pitch_of(int64_t head_dim) { return (head_dim + 31) / 32 * 16; }
  SPRUN_INLINE static int64_t v_pitch_of(int64_t v_dim) { return (v_dim + 15) / 16 * 16; }
  SPRUN_INLINE static int64_t floats(int64_t head_dim, int64_t v_dim, int64_t keys) {
    return keys * k_pitch_of(head_dim) + (keys + 1) / 2 * v_pitch_of(v_dim);
  }

  SPRUN_INLINE Bf16Keys(const AttentionBlock& block, float* scratch)
      : k_pitch(k_pitch_of(block.head_dim)),
        v_pitch(v_pitch_of(block.v_dim)),
        k(reinterpret_cast<uint32_t*>(scratch)),
        v(k + block.key_end * k_pitch) {}

  // Elements [i, i + kL) of a row of n, 0 past its end.
  SPRUN_INLINE static V part(const float* row, int64_t n, int64_t i) {
    if (i + kL <= n) return V::load(row + i);
    return i < n ? V::load_partial(row + i, n - i) : V::zero();
  }

  SPRUN_INLINE void load_key(const AttentionBlock& b, int64_t j) const {
    const float* key = static_cast<const float*>(b.k) + j * b.k_row;
    uint32_t* to = k + j * k_pitch;
    for (int64_t i = 0; i < k_pitch; i += kL) {
      __builtin_prefetch(key + kAhead * b.k_row + 2 * i);
      __builtin_prefetch(key + kAhead * b.k_row + 2 * i + kL);
      Bf16Pairs::store(to + i, Bf16Pairs::neighbours(part(key, b.head_dim, 2 * i), part(key, b.head_dim, 2 * i + kL)));
    }
  }

  SPRUN_INLINE void load_strided_key(const AttentionBlock& b, int64_t j) const {
    const float* key = static_cast<const float*>(b.k) + j * b.k_row;
    alignas(64) float t[2 * kL];
    for (int64_t i = 0; i < k_pitch; i += kL) {
      for (int64_t d = 0; d < 2 * kL; ++d) t[d] = 2 * i + d < b.head_dim ? key[(2 * i + d) * b.k_dim] : 0.0F;
      Bf16Pairs::store(k + j * k_pitch + i, Bf16Pairs::neighbours(V::load(t), V::load(t + kL)));
    }
  }

  SPRUN_INLINE void load_values(const AttentionBlock& b, int64_t j) const {
    const bool paired = j + 1 < b.key_end;
    const float *first = static_cast<const float*>(b.v) + j * b.v_row, *second = paired ? first + b.v_row : first;
    uint32_t* to = v + j / 2 * v_pitch;
    for (int64_t d = 0; d < b.v_dim; d += kL) {
      __builtin_prefetch(first + kAhead * b.v_row + d);
      __builtin_prefetch(second + kAhead * b.v_row + d);
      const V other = paired ? part(second, b.v_dim, d) : V::zero();
      Bf16Pairs::store(to + d, Bf16Pairs::zipped(part(first, b.v_dim, d), other));
    }
  }

  SPRUN_INLINE void load(const AttentionBlock& b) const {
    for (int64_t j = 0; j < b.key_end; ++j) {
      if (b.k_dim == 1) load_key(b, j);
      else load_strided_key(b, j);
    }
    for (int64_t j = 0; j < b.key_end; j += 2) load_values(b, j);
  }
};

// e^x for x <= 0 or NaN to 8e-5 of its size, a fortieth of what rounding to bf16 may change it by. Coefficients of 2^f on
// [0, 1]: our own fit, weighted least squares for the smallest relative error.
SPRUN_INLINE F32<simd::Avx512> exp_rounded(F32<simd::Avx512> x) {
  using V = F32<simd::Avx512>;
  constexpr float kC[] = {0.9999251961708069F, 0.6958335638046265F, 0.2260671705007553F, 0.07802451401948929F};
  constexpr int kMinusFloor = 9;  // 0 for -inf
  const V t = x * V::broadcast(1.44269504088896341F);
  const V f = {_mm512_reduce_ps(t.v, kMinusFloor)};
  return V::scale_pow2(simd::polynomial(f, kC), t);  // takes the floor of t
}

template <class A, int kNv>
class Bf16Runner : public BlockFrame<A, kNv, Bf16Runner<A, kNv>> {
  using Frame = BlockFrame<A, kNv, Bf16Runner<A, kNv>>;
  using Keys = Bf16Keys<A>;
  using V = typename Frame::V;
  using Frame::kL, Frame::kR, Frame::kW, Frame::kKeyTile, Frame::b_, Frame::p_, Frame::o_, Frame::first_, Frame::factor_;

 public:
  static constexpr int64_t kKeyGroup = 2;

  // scratch: what load() left there first.
  Bf16Runner(const AttentionBlock& block, float* scratch)
      : Frame(block, scratch + Keys::floats(block.head_dim, block.v_dim, block.key_end)), keys_(block, scratch) {
    p2_ = reinterpret_cast<uint32_t*>(scratch + Keys::floats(block.head_dim, block.v_dim, block.key_end) +
                                      frame_floats<A>(block.v_dim));
    q_ = p2_ + kKeyTile / 2 * kW;
  }

  void load_queries() {
    const V scale = V::broadcast(b_.scale);
    for (int64_t r0 = 0; r0 < kW; r0 += kL) {
      for (int64_t i0 = 0; i0 < keys_.k_pitch; i0 += kL) {
        V t[kL];
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) {
          if (r0 + i >= b_.rows) {
            t[i] = V::zero();
            continue;
          }
          const float* q = b_.q[r0 + i];
          const auto pairs = Bf16Pairs::neighbours(Keys::part(q, b_.head_dim, 2 * i0) * scale,
                                                   Keys::part(q, b_.head_dim, 2 * i0 + kL) * scale);
          t[i].v = _mm512_castsi512_ps(pairs);
        }
        simd::transpose(t);
#pragma GCC unroll 16
        for (int i = 0; i < kL; ++i) t[i].store(reinterpret_cast<float*>(q_) + (i0 + i) * kW + r0);
      }
    }
  }

  SPRUN_INLINE void multiply_keys(int64_t j, int64_t i, int64_t n, V (&acc)[kR][kNv]) {
    // Past the last key the last one is computed again and dropped.
    const uint32_t* k[kR];
#pragma GCC unroll 8
    for (int r = 0; r < kR; ++r) {
      k[r] = keys_.k + (j + (i + r < n ? i + r : n - 1)) * keys_.k_pitch;
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v] = V::zero();
    }
    multiply(k, 1, q_, (b_.head_dim + 1) / 2, acc);
  }

  void exponentials(int64_t n) {
    V low[kNv], sum[kNv];
    this->raise_maxima(low, sum);
    const float* p = p_;
    uint32_t* to = p2_;
    for (int64_t i = 0; i + 1 < n; i += 2, p += 2 * kW, to += kW) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) {
        const V first = exp_rounded(V::load(p + v * kL) - low[v]);
        const V second = exp_rounded(V::load(p + kW + v * kL) - low[v]);
        sum[v] = sum[v] + (first + second);
        Bf16Pairs::store(to + v * kL, Bf16Pairs::zipped(first, second));
      }
    }
    if (n % 2 != 0) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) {
        const V last = exp_rounded(V::load(p + v * kL) - low[v]);
        sum[v] = sum[v] + last;
        Bf16Pairs::store(to + v * kL, Bf16Pairs::zipped(last, V::zero()));
      }
    }
    this->store_sums(sum);
  }

  void accumulate(int64_t j, int64_t n) {
    const uint32_t* values = keys_.v + j / 2 * keys_.v_pitch;
    int64_t d = 0;
    for (; d + kR <= b_.v_dim; d += kR) accumulate_dims<kR>(values, d, n);
    for (; d < b_.v_dim; ++d) accumulate_dims<1>(values, d, n);
  }

 private:
  // acc[r][v] += sum over i < depth of a[r][i * a_step] * b[i][v], pairs; b dense rows of kNv vectors.
  template <int kDims>
  SPRUN_INLINE static void multiply(const uint32_t* const (&a)[kDims], int64_t a_step, const uint32_t* b,
                                    int64_t depth, V (&acc)[kDims][kNv]) {
    int64_t at = 0;
    for (int64_t i = 0; i < depth; ++i) {
      Bf16Pairs::Raw row[kNv];
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) row[v] = Bf16Pairs::load(b + v * kL);
#pragma GCC unroll 8
      for (int r = 0; r < kDims; ++r) {
        const auto x = Bf16Pairs::broadcast(a[r] + at);
#pragma GCC unroll 4
        for (int v = 0; v < kNv; ++v) Bf16Pairs::accumulate(acc[r][v], row[v], x);
      }
      at += a_step;
      b += kW;
    }
  }

  template <int kDims>
  SPRUN_INLINE void accumulate_dims(const uint32_t* values, int64_t d, int64_t n) {
    const uint32_t* a[kDims];
    V acc[kDims][kNv];
    float* o = o_ + d * kW;
#pragma GCC unroll 8
    for (int r = 0; r < kDims; ++r) {
      a[r] = values + d + r;
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v] = V::zero();
    }
    if (!first_) {
#pragma GCC unroll 8
      for (int r = 0; r < kDims; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < kNv; ++v) acc[r][v] = V::load(o + r * kW + v * kL) * V::load(factor_ + v * kL);
      }
    }
    multiply(a, keys_.v_pitch, p2_, (n + 1) / 2, acc);
#pragma GCC unroll 8
    for (int r = 0; r < kDims; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[r][v].store(o + r * kW + v * kL);
    }
  }

  Keys keys_;
  uint32_t* p2_;  // [kKeyTile / 2, kW] pairs along keys
  uint32_t* q_;   // [k_pitch, kW] pairs along the head
};

template <class A>
void load_bf16_keys(const AttentionBlock& block, float* scratch) {
  Bf16Keys<A>(block, scratch).load(block);
}

template <class A>
void run_bf16_block(const AttentionBlock& block, float* partial, float* scratch) {
  run_with_vectors<A, Bf16Runner>(block, partial, scratch);
}

template <class A>
int64_t bf16_scratch_floats(int64_t head_dim, int64_t v_dim, int64_t keys) {
  constexpr int64_t kWidest = Tile<A>::kVecs * F32<simd::VecArch<A>>::kLanes;
  return Bf16Keys<A>::floats(head_dim, v_dim, keys) + frame_floats<A>(v_dim) +
         (Tile<A>::kKeys / 2 + Bf16Keys<A>::k_pitch_of(head_dim)) * kWidest;
}

// Few query rows read keys and values once: there is nothing to gain from rounding them, so no decode. No parts either:
// load() takes all keys.
template <class A>
inline constexpr AttentionKernel kBf16Attention = {
    .lanes = F32<simd::VecArch<A>>::kLanes,
    .max_rows = F32<simd::VecArch<A>>::kLanes * Tile<A>::kVecs,
    .run = run_bf16_block<A>,
    .scratch_floats = bf16_scratch_floats<A>,
    .load = load_bf16_keys<A>,
    .decode_rows = 0,
    .decode = nullptr,
    .decode_scratch_floats = nullptr,
    .merge = nullptr,
};

}  // namespace sprun::kernels::attn
