// Bodies of the block-quantised weight family, instantiated per Arch by nbits_<isa>.cc.
//
// Weights, scales and zero points of the next tile are prefetched while this one is used: measured on Zen 5, reading
// 4-bit weights from memory went from 7 to 25 GB/s with the scales among them.
//
// 2- and 4-bit weights are read as vectors of 32-bit words, one word per lane. Shifting all lanes by one code gives
// the next vector of weights, so X is laid out to match: arrange() puts the inputs that meet in step j of a chunk
// side by side, and their sum per lane after them (for zero points). A lane never crosses a block.
#pragma once

#include <type_traits>

#include "kernels/nbits/nbits_types.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::nbits {

enum class Zero { kDefault, kU8, kF32 };

// --- what differs per ISA

// Lane l of the result is v[l >> shift].
template <class Arch>
SPRUN_INLINE simd::F32<Arch> spread_lanes(simd::F32<Arch> v, int shift) {
  using V = simd::F32<Arch>;
  float in[V::kLanes], out[V::kLanes];
  v.store(in);
  for (int64_t l = 0; l < V::kLanes; ++l) out[l] = in[l >> shift];
  return V::load(out);
}

// The codes of one step: low bits of every word minus `offset`, as floats.
template <class Arch, int kBits>
struct Decoder {
  using I = simd::I32<Arch>;
  I offset;
  SPRUN_INLINE explicit Decoder(int32_t o) : offset(I::broadcast(o)) {}
  SPRUN_INLINE simd::F32<Arch> operator()(I word) const {
    return ((word & I::broadcast((1 << kBits) - 1)) - offset).to_f32();
  }
};

#if defined(__AVX512F__)
template <>
SPRUN_INLINE simd::F32<simd::Avx512> spread_lanes(simd::F32<simd::Avx512> v, int shift) {
  const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm512_permutexvar_ps(_mm512_srl_epi32(lane, _mm_cvtsi32_si128(shift)), v.v)};
}

// A table look-up sees only the low four bits of a word: no mask and no conversion.
template <int kBits>
requires(kBits <= 4) struct Decoder<simd::Avx512, kBits> {
  __m512 table;
  SPRUN_INLINE explicit Decoder(int32_t offset) {
    float values[16];
    for (int i = 0; i < 16; ++i) values[i] = static_cast<float>((i & ((1 << kBits) - 1)) - offset);
    table = _mm512_loadu_ps(values);
  }
  SPRUN_INLINE simd::F32<simd::Avx512> operator()(simd::I32<simd::Avx512> word) const {
    return {_mm512_permutexvar_ps(word.v, table)};
  }
};
#elif defined(__AVX2__)
template <>
SPRUN_INLINE simd::F32<simd::Avx2> spread_lanes(simd::F32<simd::Avx2> v, int shift) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return {_mm256_permutevar8x32_ps(v.v, _mm256_srl_epi32(lane, _mm_cvtsi32_si128(shift)))};
}
#endif

// --- the order of X

// Sizes of the word layout.
template <class Arch, int kBits>
struct Words {
  static constexpr int64_t kLanes = simd::F32<Arch>::kLanes;
  static constexpr int64_t kPer = 32 / kBits;             // codes per word = steps per chunk
  static constexpr int64_t kChunk = (kPer + 1) * kLanes;  // floats of X per chunk, with the sums
  int64_t words, chunks, block_words;

  SPRUN_INLINE explicit Words(const NbitsWeight& w)
      : words(w.padded_k() / kPer), chunks((words + kLanes - 1) / kLanes), block_words(w.block_size / kPer) {}
};

template <class Arch, int kBits>
void arrange_words(const NbitsWeight& w, const float* x, float* out) {
  using L = Words<Arch, kBits>;
  const L layout(w);
  for (int64_t c = 0; c < layout.chunks; ++c, out += L::kChunk) {
    for (int64_t l = 0; l < L::kLanes; ++l) {
      const int64_t k0 = (c * L::kLanes + l) * L::kPer;
      float sum = 0;
      for (int64_t j = 0; j < L::kPer; ++j) {
        const float v = k0 + j < w.k ? x[k0 + j] : 0.0F;
        out[j * L::kLanes + l] = v;
        sum += v;
      }
      out[L::kPer * L::kLanes + l] = sum;
    }
  }
}

// --- Y = X W^T for few rows

// Scales or zero points of one chunk, each in the lanes of its block.
template <class Arch>
struct BlockLanes {
  using V = simd::F32<Arch>;
  int64_t per_chunk;    // blocks that a chunk touches
  int block_shift;      // log2 of the words of a block: also of the lanes of a block inside one chunk
  typename V::M upper;  // lanes of the second block of two
  static constexpr int kLaneShift = V::kLanes == 16 ? 4 : V::kLanes == 8 ? 3 : 2;

  SPRUN_INLINE explicit BlockLanes(int64_t block_words)
      : per_chunk(block_words >= V::kLanes ? 1 : V::kLanes / block_words),
        block_shift(__builtin_ctzll(static_cast<unsigned long long>(block_words))) {
    float lane[V::kLanes];
    for (int64_t l = 0; l < V::kLanes; ++l) lane[l] = static_cast<float>(l);
    upper = V::load(lane) >= V::broadcast(static_cast<float>(V::kLanes / 2));
  }
  SPRUN_INLINE int64_t first(int64_t chunk) const { return chunk << kLaneShift >> block_shift; }
  SPRUN_INLINE int64_t count(int64_t block, int64_t blocks) const {
    return blocks - block < per_chunk ? blocks - block : per_chunk;
  }
  // One and two blocks do without partial loads, which are slow below AVX-512.
  SPRUN_INLINE V pair(float first, float second) const {
    return V::select(upper, V::broadcast(second), V::broadcast(first));
  }
  SPRUN_INLINE V floats(const float* p, int64_t n) const {
    if (per_chunk == 1) return V::broadcast(*p);
    if (per_chunk == 2) return pair(p[0], p[n - 1]);
    return spread_lanes<Arch>(V::load_partial(p, n), block_shift);
  }
  SPRUN_INLINE V bytes(const uint8_t* p, int64_t n) const {
    if (per_chunk == 1) return V::broadcast(static_cast<float>(*p));
    if (per_chunk == 2) return pair(static_cast<float>(p[0]), static_cast<float>(p[n - 1]));
    return spread_lanes<Arch>(simd::I32<Arch>::load_u8_partial(p, n).to_f32(), block_shift);
  }
};

// Which outputs the places [n, n + kN) stand for, and those of the next tile, which are fetched meanwhile.
template <bool kListed, int kN>
struct TileRows {
  const NbitsGemvArgs& a;
  int64_t n;
  SPRUN_INLINE int64_t row(int64_t i) const {
    if constexpr (kListed) return a.ids[n + i];
    return n + i;
  }
  // Rows from there to the same row of the next tile.
  SPRUN_INLINE int64_t step(int64_t i) const {
    if constexpr (kListed) return a.ids[n + kN + i < a.listed ? n + kN + i : n + i] - a.ids[n + i];
    return kN;
  }
};

template <class Arch, bool kListed, int kN, int kM>
SPRUN_INLINE void store_sums(const NbitsGemvArgs& a, int64_t n, int64_t m, const simd::F32<Arch> (&acc)[kN][kM]) {
  for (int i = 0; i < kN; ++i) {
    const float bias = a.bias == nullptr ? 0.0F : a.bias[TileRows<kListed, kN>{a, n}.row(i)];
    for (int r = 0; r < kM; ++r) a.y[(m + r) * a.ldy + n + i] = acc[i][r].reduce_add() + bias;
  }
}

// Outputs [n, n + kN) of rows [m, m + kM), 2 or 4 bits.
template <class Arch, int kBits, Zero kZero, bool kListed, int kN, int kM>
void words_tile(const NbitsGemvArgs& a, int64_t n, int64_t m) {
  const TileRows<kListed, kN> at_row{a, n};
  using V = simd::F32<Arch>;
  using I = simd::I32<Arch>;
  using L = Words<Arch, kBits>;
  const L layout(a.w);
  const BlockLanes<Arch> lanes(layout.block_words);
  const Decoder<Arch, kBits> decode(kZero == Zero::kDefault ? 1 << (kBits - 1) : 0);
  V acc[kN][kM];
  for (int i = 0; i < kN; ++i) {
    for (int r = 0; r < kM; ++r) acc[i][r] = V::zero();
  }
  const int64_t full = layout.words / L::kLanes;
  const auto chunk = [&](int64_t c, auto whole) __attribute__((always_inline)) {
    constexpr bool kWhole = decltype(whole)::value;
    const float* x = a.x + m * a.x_stride + c * L::kChunk;
    const int64_t left = layout.words - c * L::kLanes;
    I word[kN];
    V sum[kN][kM];
#pragma GCC unroll 4
    for (int i = 0; i < kN; ++i) {
      const uint8_t* at = a.w.data + at_row.row(i) * a.w.row_bytes() + c * L::kLanes * 4;
      const int32_t* p = reinterpret_cast<const int32_t*>(at);
      word[i] = kWhole ? I::load(p) : I::load_partial(p, left);
      __builtin_prefetch(at + at_row.step(i) * a.w.row_bytes());  // the same place in the next tile
#pragma GCC unroll 4
      for (int r = 0; r < kM; ++r) sum[i][r] = V::zero();
    }
#pragma GCC unroll 16
    for (int64_t j = 0; j < L::kPer; ++j) {
#pragma GCC unroll 4
      for (int i = 0; i < kN; ++i) {
        const V weight = decode(word[i]);
#pragma GCC unroll 4
        for (int r = 0; r < kM; ++r) {
          sum[i][r] = V::fma(weight, V::load(x + r * a.x_stride + j * L::kLanes), sum[i][r]);
        }
        word[i] = word[i].template shr_logic<kBits>();
      }
    }
    const int64_t block = lanes.first(c), count = kWhole ? lanes.per_chunk : lanes.count(block, a.w.blocks);
#pragma GCC unroll 4
    for (int i = 0; i < kN; ++i) {
      const int64_t at = at_row.row(i) * a.w.blocks + block;
      const int64_t ahead = at + at_row.step(i) * a.w.blocks;
      const V scale = lanes.floats(a.w.scale + at, count);
      __builtin_prefetch(a.w.scale + ahead);
      V zero = V::zero();
      if constexpr (kZero == Zero::kU8) {
        zero = lanes.bytes(a.w.zero_u8 + at, count);
        __builtin_prefetch(a.w.zero_u8 + ahead);
      }
      if constexpr (kZero == Zero::kF32) {
        zero = lanes.floats(a.w.zero_f32 + at, count);
        __builtin_prefetch(a.w.zero_f32 + ahead);
      }
#pragma GCC unroll 4
      for (int r = 0; r < kM; ++r) {
        V s = sum[i][r];
        if constexpr (kZero != Zero::kDefault) {
          s = V::fma(-zero, V::load(x + r * a.x_stride + L::kPer * L::kLanes), s);
        }
        acc[i][r] = V::fma(s, scale, acc[i][r]);
      }
    }
  };
  for (int64_t c = 0; c < full; ++c) chunk(c, std::true_type{});
  if (full < layout.chunks) chunk(full, std::false_type{});
  store_sums<Arch, kListed>(a, n, m, acc);
}

// The same for 8 bits: X stays in order, a vector of weights lies within one block.
template <class Arch, Zero kZero, bool kListed, int kN, int kM>
void bytes_tile(const NbitsGemvArgs& a, int64_t n, int64_t m) {
  const TileRows<kListed, kN> at_row{a, n};
  using V = simd::F32<Arch>;
  using I = simd::I32<Arch>;
  V acc[kN][kM];
  for (int i = 0; i < kN; ++i) {
    for (int r = 0; r < kM; ++r) acc[i][r] = V::zero();
  }
  const float* x = a.x + m * a.x_stride;
  for (int64_t b = 0; b < a.w.blocks; ++b) {
    V sum[kN][kM], zero[kN];
    I zero_code[kN];
#pragma GCC unroll 4
    for (int i = 0; i < kN; ++i) {
      const int64_t at = at_row.row(i) * a.w.blocks + b;
      zero_code[i] = I::broadcast(kZero == Zero::kU8 ? a.w.zero_u8[at] : kZero == Zero::kF32 ? 0 : 128);
      zero[i] = V::broadcast(kZero == Zero::kF32 ? a.w.zero_f32[at] : 0.0F);
#pragma GCC unroll 4
      for (int r = 0; r < kM; ++r) sum[i][r] = V::zero();
    }
    for (int64_t k = b * a.w.block_size; k < (b + 1) * a.w.block_size; k += V::kLanes) {
#pragma GCC unroll 4
      for (int i = 0; i < kN; ++i) {
        const uint8_t* codes = a.w.data + at_row.row(i) * a.w.row_bytes() + k;
        if (k % 64 == 0) __builtin_prefetch(codes + at_row.step(i) * a.w.row_bytes());
        V weight = (I::load_u8(codes) - zero_code[i]).to_f32();
        if constexpr (kZero == Zero::kF32) weight = weight - zero[i];
#pragma GCC unroll 4
        for (int r = 0; r < kM; ++r) sum[i][r] = V::fma(weight, V::load(x + r * a.x_stride + k), sum[i][r]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kN; ++i) {
      const int64_t at = at_row.row(i) * a.w.blocks + b;
      const V scale = V::broadcast(a.w.scale[at]);
      __builtin_prefetch(a.w.scale + at + at_row.step(i) * a.w.blocks);
#pragma GCC unroll 4
      for (int r = 0; r < kM; ++r) acc[i][r] = V::fma(sum[i][r], scale, acc[i][r]);
    }
  }
  store_sums<Arch, kListed>(a, n, m, acc);
}

template <class Arch, int kBits, Zero kZero, bool kListed, int kN, int kM>
SPRUN_INLINE void tile(const NbitsGemvArgs& a, int64_t n, int64_t m) {
  if constexpr (kBits == 8) bytes_tile<Arch, kZero, kListed, kN, kM>(a, n, m);
  else words_tile<Arch, kBits, kZero, kListed, kN, kM>(a, n, m);
}

// Outputs [n, n + kN) of all rows: the weights of a tile stay in L1 from one pair of rows to the next.
template <class Arch, int kBits, Zero kZero, bool kListed, int kN>
SPRUN_INLINE void outputs(const NbitsGemvArgs& a, int64_t n) {
  constexpr int kPairN = simd::F32<Arch>::kLanes == 16 || kN == 1 ? kN : kN / 2;  // 32 registers, or 16
  int64_t m = 0;
  for (; m + 2 <= a.m; m += 2) {
    for (int64_t i = 0; i < kN; i += kPairN) tile<Arch, kBits, kZero, kListed, kPairN, 2>(a, n + i, m);
  }
  if (m < a.m) tile<Arch, kBits, kZero, kListed, kN, 1>(a, n, m);
}

template <class Arch, int kBits, Zero kZero, bool kListed>
void rows(const NbitsGemvArgs& a, int64_t n_begin, int64_t n_end) {
  int64_t n = n_begin;
  for (; n + 4 <= n_end; n += 4) outputs<Arch, kBits, kZero, kListed, 4>(a, n);
  for (; n < n_end; ++n) outputs<Arch, kBits, kZero, kListed, 1>(a, n);
}

template <class Arch, int kBits, bool kListed>
void gemv_rows(const NbitsGemvArgs& a, int64_t n_begin, int64_t n_end) {
  if (a.w.zero_u8 != nullptr) return rows<Arch, kBits, Zero::kU8, kListed>(a, n_begin, n_end);
  if (a.w.zero_f32 != nullptr) return rows<Arch, kBits, Zero::kF32, kListed>(a, n_begin, n_end);
  rows<Arch, kBits, Zero::kDefault, kListed>(a, n_begin, n_end);
}

template <class Arch, int kBits>
void gemv_bits(const NbitsGemvArgs& a, int64_t n_begin, int64_t n_end) {
  if (a.ids != nullptr) return gemv_rows<Arch, kBits, true>(a, n_begin, n_end);
  gemv_rows<Arch, kBits, false>(a, n_begin, n_end);
}

// --- panels of floats: one output per lane

// Words [first, first + count) of the rows of a panel as out[word][lane]; columns past the end are 0.
template <int64_t kLanes>
SPRUN_INLINE void gather_words(const NbitsWeight& w, int64_t n, int64_t columns, int64_t first, int64_t count,
                               int32_t* out) {
  for (int64_t l = 0; l < kLanes; ++l) {
    const uint8_t* row = w.data + (n + (l < columns ? l : 0)) * w.row_bytes() + first * 4;
    __builtin_prefetch(row + 2 * kLanes * w.row_bytes(), 0, 2);  // the next panel
    for (int64_t i = 0; i < count; ++i) __builtin_memcpy(out + i * kLanes + l, row + 4 * i, 4);
  }
}

// Scale (0 past the last column) and zero point of one block for every column.
template <class Arch, int kBits>
struct BlockParams {
  using V = simd::F32<Arch>;
  V scale, zero;

  SPRUN_INLINE BlockParams(const NbitsWeight& w, int64_t n, int64_t columns, int64_t block) {
    float s[V::kLanes] = {}, z[V::kLanes] = {};
    for (int64_t l = 0; l < V::kLanes && l < columns; ++l) {
      const int64_t at = (n + l) * w.blocks + block;
      s[l] = w.scale[at];
      z[l] = static_cast<float>(1 << (kBits - 1));
      if (w.zero_u8 != nullptr) z[l] = static_cast<float>(w.zero_u8[at]);
      if (w.zero_f32 != nullptr) z[l] = w.zero_f32[at];
    }
    scale = V::load(s);
    zero = V::load(z);
  }
};

// Columns [c, c + kLanes) of the panel.
template <class Arch, int kBits>
void pack_lanes(const NbitsWeight& w, int64_t n, int64_t columns, int64_t nr, int64_t width, float* out) {
  using V = simd::F32<Arch>;
  using I = simd::I32<Arch>;
  constexpr int64_t kPer = 32 / kBits, kWords = 4;  // several words at a time: a load waits for the stores it needs
  const Decoder<Arch, kBits> decode(0);
  int32_t words[kWords * V::kLanes];
  const int64_t block_words = w.block_size / kPer;
  for (int64_t b = 0; b < w.blocks; ++b) {
    const BlockParams<Arch, kBits> params(w, n, columns, b);
    for (int64_t at = 0; at < block_words; at += kWords) {
      const int64_t count = block_words - at < kWords ? block_words - at : kWords;
      gather_words<V::kLanes>(w, n, columns, b * block_words + at, count, words);
      for (int64_t i = 0; i < count; ++i) {
        I word = I::load(words + i * V::kLanes);
        int64_t k = b * w.block_size + (at + i) * kPer;
        for (int64_t j = 0; j < kPer && k < w.k; ++j, ++k) {
          const V value = (decode(word) - params.zero) * params.scale;
          if (width == V::kLanes) value.store(out + k * nr);
          else value.store_partial(out + k * nr, width);
          word = word.template shr_logic<kBits>();
        }
      }
    }
  }
}

template <class Arch, int kBits>
void pack_bits(const NbitsWeight& w, int64_t n_begin, int64_t columns, int64_t nr, float* out) {
  constexpr int64_t kLanes = simd::F32<Arch>::kLanes;
  for (int64_t c = 0; c < nr; c += kLanes) {
    const int64_t width = nr - c < kLanes ? nr - c : kLanes;
    const int64_t left = columns - c;
    if (left > 0) {
      pack_lanes<Arch, kBits>(w, n_begin + c, left, nr, width, out + c);
    } else {
      for (int64_t k = 0; k < w.k; ++k) {
        for (int64_t i = 0; i < width; ++i) out[k * nr + c + i] = 0.0F;
      }
    }
  }
}

// --- dispatch on bits

template <class Arch>
int64_t arranged_size(const NbitsWeight& w) {
  if (w.bits == 8) return w.padded_k();
  if (w.bits == 4) return Words<Arch, 4>(w).chunks * Words<Arch, 4>::kChunk;
  return Words<Arch, 2>(w).chunks * Words<Arch, 2>::kChunk;
}

template <class Arch>
void arrange(const NbitsWeight& w, const float* x, float* out) {
  if (w.bits == 4) return arrange_words<Arch, 4>(w, x, out);
  if (w.bits == 2) return arrange_words<Arch, 2>(w, x, out);
  for (int64_t k = 0; k < w.padded_k(); ++k) out[k] = k < w.k ? x[k] : 0.0F;
}

template <class Arch>
void gemv(const NbitsGemvArgs& a, int64_t n_begin, int64_t n_end) {
  if (a.w.bits == 4) return gemv_bits<Arch, 4>(a, n_begin, n_end);
  if (a.w.bits == 8) return gemv_bits<Arch, 8>(a, n_begin, n_end);
  gemv_bits<Arch, 2>(a, n_begin, n_end);
}

template <class Arch>
void pack(const NbitsWeight& w, int64_t n_begin, int64_t columns, int64_t nr, float* out) {
  if (w.bits == 4) return pack_bits<Arch, 4>(w, n_begin, columns, nr, out);
  if (w.bits == 8) return pack_bits<Arch, 8>(w, n_begin, columns, nr, out);
  pack_bits<Arch, 2>(w, n_begin, columns, nr, out);
}

template <class Arch>
inline constexpr NbitsKernel kNbits = {arranged_size<Arch>, arrange<Arch>, gemv<Arch>, pack<Arch>};

}  // namespace sprun::kernels::nbits
