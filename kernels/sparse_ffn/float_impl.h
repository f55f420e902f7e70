// Products of f32 and bf16 rows, four neurons at a time, instantiated per Arch by
// sparse_ffn_<weights>_<isa>.cc. Sums are float.
//
// Up: dot_impl.h. Down: outputs as lanes, two neurons a step for bf16 (their elements are
// interleaved to pairs), outputs outer, neurons inner, sums in registers. x and h of bf16 layers
// are bf16.
#pragma once

#include "kernels/simd/dot2.h"
#include "kernels/simd/half.h"
#include "kernels/sparse_ffn/dot_impl.h"
#include "kernels/sparse_ffn/rows_impl.h"

namespace sprun::kernels::sparse_ffn {

// Brings the sums of low and high pairs of each 128-bit lane into the order of the outputs.
SPRUN_INLINE void natural_order(simd::F32<simd::Sse2> (&)[2]) {}
#if defined(__AVX2__)
SPRUN_INLINE void natural_order(simd::F32<simd::Avx2> (&v)[2]) {
  const __m256 low = _mm256_permute2f128_ps(v[0].v, v[1].v, 0x20);
  v[1].v = _mm256_permute2f128_ps(v[0].v, v[1].v, 0x31);
  v[0].v = low;
}
#endif
#if defined(__AVX512F__)
SPRUN_INLINE void natural_order(simd::F32<simd::Avx512> (&v)[2]) {
  const __m512 low = _mm512_shuffle_f32x4(v[0].v, v[1].v, 0x44);
  const __m512 high = _mm512_shuffle_f32x4(v[0].v, v[1].v, 0xee);
  v[0].v = _mm512_shuffle_f32x4(low, low, 0xd8);
  v[1].v = _mm512_shuffle_f32x4(high, high, 0xd8);
}
#endif

template <class Arch>
struct F32Ops {
  using T = float;
  using Sum = float;
  using V = simd::F32<simd::VecArch<Arch>>;
  using A = V;
  using B = V;
  static constexpr int64_t kStep = V::kLanes;  // inputs of a register of weights
  static constexpr int64_t kPair = 1;          // neurons of a step of down
  static constexpr int kSums =
      V::kLanes == 16 ? 1 : 2;  // of a block of down: at most a line of weights
  SPRUN_INLINE static A x(const T* p) { return V::load(p); }
  SPRUN_INLINE static B w(const T* p) { return V::load(p); }
  SPRUN_INLINE static A h(const T* p) { return V::broadcast(*p); }
  SPRUN_INLINE static void accumulate(V& acc, A a, B b) { acc = V::fma(a, b, acc); }
  // The weights of kSums * V::kLanes outputs of kPair rows, one operand per sum.
  SPRUN_INLINE static void outputs(const char* const* rows, int64_t at, B (&b)[kSums]) {
    const T* row = reinterpret_cast<const T*>(rows[0]) + at;
#pragma GCC unroll 2
    for (int v = 0; v < kSums; ++v) b[v] = V::load(row + v * V::kLanes);
  }
  SPRUN_INLINE static void order(V (&)[kSums]) {}
  SPRUN_INLINE static T narrow(float v) { return v; }
};

template <class Arch>
struct Bf16Ops {
  using T = uint16_t;
  using Sum = float;
  using V = simd::F32<simd::VecArch<Arch>>;
  using I = simd::I32<simd::VecArch<Arch>>;
  using Dot = simd::Dot2<Arch>;
  using Lanes = simd::Interleave<simd::VecArch<Arch>>;
  using A = typename Dot::A;
  using B = typename Dot::B;
  static constexpr int64_t kStep = 2 * V::kLanes;
  static constexpr int64_t kPair = 2;
  static constexpr int kSums = 2;
  SPRUN_INLINE static A x(const T* p) { return Dot::split(I{Lanes::load(p)}); }
  SPRUN_INLINE static B w(const T* p) { return Dot::load(p); }
  SPRUN_INLINE static A h(const T* p) { return Dot::broadcast(simd::load_pair(p)); }
  SPRUN_INLINE static void accumulate(V& acc, A a, B b) { Dot::accumulate(acc, a, b); }
  SPRUN_INLINE static void outputs(const char* const* rows, int64_t at, B (&b)[2]) {
    const auto first = Lanes::load(rows[0] + 2 * at);
    const auto second = Lanes::load(rows[1] + 2 * at);
    b[0] = Dot::split(I{Lanes::low16(first, second)});
    b[1] = Dot::split(I{Lanes::high16(first, second)});
  }
  SPRUN_INLINE static void order(V (&v)[2]) { natural_order(v); }
  SPRUN_INLINE static T narrow(float v) { return simd::f32_to_bf16(v); }
};

template <class Arch, class Ops>
struct Floats {
  using T = typename Ops::T;
  using V = typename Ops::V;
  static constexpr bool kManyRegisters = V::kLanes == 16;
  static constexpr int kDownTokens = kManyRegisters ? 8 : 4;
  static constexpr int kSums = Ops::kSums;
  static constexpr int64_t kOutputs = kSums * V::kLanes;  // of a block of down
  static constexpr int64_t kSize = sizeof(T);

  static void convert(const float* x, int64_t k, int64_t padded, void* y) {
    T* out = static_cast<T*>(y);
    for (int64_t i = 0; i < k; ++i) out[i] = Ops::narrow(x[i]);
    for (int64_t i = k; i < padded; ++i) out[i] = T{0};
  }

  // ---- down
  // acc[t0 + t, n ...] += h * rows for kBlocks blocks of kOutputs outputs from n.
  template <int kTok, int kBlocks, bool kFetch>
  static void down_block(const FfnDownArgs& a, const DownRows& rows, int64_t begin, int64_t count,
                         int64_t t0, int64_t n) {
    const T* h = static_cast<const T*>(a.h) + t0 * a.ld_h + begin;
    V acc[kTok][kBlocks][kSums];
#pragma GCC unroll 8
    for (int t = 0; t < kTok; ++t) {
#pragma GCC unroll 8
      for (int v = 0; v < kSums * kBlocks; ++v) acc[t][v / kSums][v % kSums] = V::zero();
    }
    int64_t i = 0;
    do {  // as in DotRows
      typename Ops::A in[kTok];
#pragma GCC unroll 8
      for (int t = 0; t < kTok; ++t) in[t] = Ops::h(h + t * a.ld_h + i);
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) {
        const int64_t at = n + b * kOutputs;
        if constexpr (kFetch) fetch_rows(rows, i, at);
        typename Ops::B w[kSums];
        Ops::outputs(rows.row + i, at, w);
#pragma GCC unroll 8
        for (int t = 0; t < kTok; ++t) {
#pragma GCC unroll 2
          for (int v = 0; v < kSums; ++v) Ops::accumulate(acc[t][b][v], in[t], w[v]);
        }
      }
      i += Ops::kPair;
      asm("" : "+r"(i));
    } while (i < count);
#pragma GCC unroll 8
    for (int t = 0; t < kTok; ++t) {
      float* out = static_cast<float*>(a.acc) + (t0 + t) * a.ld_acc + n;
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) {
        Ops::order(acc[t][b]);
#pragma GCC unroll 2
        for (int v = 0; v < kSums; ++v) {
          float* to = out + b * kOutputs + v * V::kLanes;
          (V::load(to) + acc[t][b][v]).store(to);
        }
      }
    }
  }

  SPRUN_INLINE static void fetch_rows(const DownRows& rows, int64_t i, int64_t at) {
#pragma GCC unroll 2
    for (int64_t r = 0; r < Ops::kPair; ++r) {
#pragma GCC unroll 2
      for (int64_t line = 0; line < kOutputs * kSize; line += 64) {
        fetch(rows.next[i + r] + at * kSize + line);
      }
    }
  }

  // One token: more outputs at a time.
  static void down_one(const FfnDownArgs& a, const DownRows& rows, int64_t begin, int64_t count) {
    constexpr int kBlocks = 8 / kSums;
    int64_t n = 0;
    for (; n + kBlocks * kOutputs <= a.n; n += kBlocks * kOutputs) {
      down_block<1, kBlocks, true>(a, rows, begin, count, 0, n);
    }
    for (; n < a.n; n += kOutputs) down_block<1, 1, true>(a, rows, begin, count, 0, n);
  }

  using DownFn = void(const FfnDownArgs&, const DownRows&, int64_t, int64_t, int64_t, int64_t);
  template <int kTok, bool kFetch>
  static constexpr DownFn* kDownAt = down_block<(kTok <= kDownTokens ? kTok : 1), 1, kFetch>;
  template <bool kFetch>
  static constexpr DownFn* kDown[8] = {kDownAt<1, kFetch>, kDownAt<2, kFetch>, kDownAt<3, kFetch>,
                                       kDownAt<4, kFetch>, kDownAt<5, kFetch>, kDownAt<6, kFetch>,
                                       kDownAt<7, kFetch>, kDownAt<8, kFetch>};

  static void down_many(const FfnDownArgs& a, const DownRows& rows, int64_t begin, int64_t count) {
    const int64_t passes = (a.rows_of_h + kDownTokens - 1) / kDownTokens;
    for (int64_t n = 0; n < a.n; n += kOutputs) {
      for (int64_t p = 0; p < passes; ++p) {
        const int64_t t0 = p * a.rows_of_h / passes;
        const int64_t tokens = (p + 1) * a.rows_of_h / passes - t0;
        (p == 0 ? kDown<true> : kDown<false>)[tokens - 1](a, rows, begin, count, t0, n);
      }
    }
  }

  static void down(const FfnDownArgs& a) {
    const int64_t step = a.rows_of_h == 1 ? kDownRows : kDownRowsMany;
    for (int64_t begin = 0; begin < a.count; begin += step) {
      const int64_t count = a.count - begin < step ? a.count - begin : step;
      const DownRows rows(a, begin, count, step);
      if (a.rows_of_h == 1) {
        down_one(a, rows, begin, count);
      } else {
        down_many(a, rows, begin, count);
      }
    }
  }

  // ---- one token's list
  template <int kBlocks>
  static void list_block(const FfnListArgs& a, int64_t n) {
    const T* h = static_cast<const T*>(a.h);
    V acc[kBlocks][kSums];
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
#pragma GCC unroll 2
      for (int v = 0; v < kSums; ++v) acc[b][v] = V::zero();
    }
    for (int64_t i = 0; i < a.count; i += Ops::kPair) {
      const typename Ops::A in = Ops::h(h + i);
      const char* rows[Ops::kPair];
#pragma GCC unroll 2
      for (int64_t r = 0; r < Ops::kPair; ++r) rows[r] = a.rows + a.ids[i + r] * a.stride_bytes;
#pragma GCC unroll 8
      for (int b = 0; b < kBlocks; ++b) {
        typename Ops::B w[kSums];
        Ops::outputs(rows, n + b * kOutputs, w);
#pragma GCC unroll 2
        for (int v = 0; v < kSums; ++v) Ops::accumulate(acc[b][v], in, w[v]);
      }
    }
    float* out = static_cast<float*>(a.acc) + n;
#pragma GCC unroll 8
    for (int b = 0; b < kBlocks; ++b) {
      Ops::order(acc[b]);
#pragma GCC unroll 2
      for (int v = 0; v < kSums; ++v) {
        float* to = out + b * kOutputs + v * V::kLanes;
        (a.add ? V::load(to) + acc[b][v] : acc[b][v]).store(to);
      }
    }
  }

  // Sums of a whole list stay in registers; no list has negative magnitudes.
  static void down_list(const FfnListArgs& a) {
    constexpr int kBlocks = 8 / kSums;
    int64_t n = 0;
    for (; n + kBlocks * kOutputs <= a.n; n += kBlocks * kOutputs) list_block<kBlocks>(a, n);
    for (; n < a.n; n += kOutputs) list_block<1>(a, n);
  }
};

template <class Arch, class Ops>
inline constexpr SparseFfnKernel kFloats = {Floats<Arch, Ops>::convert,
                                            Rows<Arch>::sparsify,
                                            DotRows<Ops, Ops::V::kLanes == 16 ? 4 : 2>::dot,
                                            Rows<Arch>::template hidden<float>,
                                            Floats<Arch, Ops>::down,
                                            Floats<Arch, Ops>::down_list,
                                            Rows<Arch>::out};

template <class Arch>
inline constexpr SparseFfnKernel kF32 = kFloats<Arch, F32Ops<Arch>>;
template <class Arch>
inline constexpr SparseFfnKernel kBf16 = kFloats<Arch, Bf16Ops<Arch>>;

}  // namespace sprun::kernels::sparse_ffn
