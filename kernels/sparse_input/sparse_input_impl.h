// Bodies of the sparse-input family, instantiated per Arch by sparse_input_<isa>.cc.
//
// Four rows of weights are read side by side along a panel, so that sums are loaded and stored once for four inputs; a
// vector of weights is widened once for all rows of X. The rows after next are prefetched into L2: the list knows them.
#pragma once

#include <type_traits>

#include "kernels/gemm/epilogue_impl.h"
#include "kernels/simd/stored.h"
#include "kernels/sparse_input/sparse_input_types.h"

namespace sprun::kernels::sparse_input {

// Elements of a row of weights from output `at` of a line of kSparseInputLine outputs on.
template <class Type>
struct Lines {
  using Element = typename Type::Element;
  static constexpr int64_t kPer = 1;  // outputs of an element
  template <class Arch>
  SPRUN_INLINE static simd::F32<Arch> load(const Element* line, int64_t at) {
    return Type::template load<Arch>(line + at);
  }
};

// 4-bit codes less 8.
struct StoredS4 {
  using Element = uint8_t;
};
template <class Arch>
SPRUN_INLINE simd::F32<Arch> from_s4(simd::I32<Arch> code) {
  return ((code & simd::I32<Arch>::broadcast(15)) - simd::I32<Arch>::broadcast(8)).to_f32();
}
#if defined(__AVX512F__)
// The look-up sees the low four bits only.
template <>
SPRUN_INLINE simd::F32<simd::Avx512> from_s4(simd::I32<simd::Avx512> code) {
  return {_mm512_permutexvar_ps(code.v, _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7))};
}
#endif
template <>
struct Lines<StoredS4> {
  using Element = uint8_t;
  static constexpr int64_t kPer = 2;
  template <class Arch>
  SPRUN_INLINE static simd::F32<Arch> load(const Element* line, int64_t at) {
    constexpr int64_t kHalf = kSparseInputLine / 2;
    const auto codes = simd::I32<Arch>::load_u8(line + at % kHalf);
    return from_s4<Arch>(at < kHalf ? codes : codes.template shr_logic<4>());
  }
};

template <class Arch, class Type>
struct Family {
  using Element = typename Type::Element;
  using Line = Lines<Type>;
  using VArch = simd::VecArch<Arch>;
  using V = simd::F32<VArch>;
  static constexpr int64_t kGroup = kSparseInputGroup;
  static constexpr int64_t kAhead = 2 * kGroup;
  static constexpr int64_t kLine = Line::kPer * 64 / static_cast<int64_t>(sizeof(Element));  // outputs of a cache line
  static constexpr int64_t kStep = kLine > kSparseInputLine ? kSparseInputLine : kLine > V::kLanes ? kLine : V::kLanes;

  // Scales of the block of a group, and what its inputs sum up to for shifts.
  template <int kRows>
  struct Block {
    const float* scale = nullptr;
    const float* shift = nullptr;  // null: none
    const float* next = nullptr;   // scales to fetch
    V sum[kRows];

    SPRUN_INLINE Block(const SparseInputArgs& a, int64_t panel, int64_t at, const float* x) {
      const int64_t rows = a.shifts ? 2 : 1, ahead = at + kAhead < a.listed ? at + kAhead : at;
      const auto params = [&](int64_t place) __attribute__((always_inline)) {
        return a.block_params + (panel * a.blocks + a.ids[place] / a.block_size) * rows * a.width;
      };
      scale = params(at);
      next = params(ahead);
      if (!a.shifts) return;
      shift = scale + a.width;
      for (int r = 0; r < kRows; ++r) {
        const float* v = x + r * a.ldx;
        sum[r] = V::broadcast((v[0] + v[1]) + (v[2] + v[3]));
      }
    }
  };

  // acc[r, 0..cols) (+)= sum over the group's inputs; overwrites when `first`.
  template <int kRows, bool kBlocked>
  static void group(const SparseInputArgs& a, int64_t p, const Element* panel, int64_t at, int64_t cols, bool first,
                    float* acc) {
    const Element* row[kGroup];
    const Element* next[kGroup];
    const int64_t row_elements = a.width / Line::kPer;
#pragma GCC unroll 4
    for (int64_t j = 0; j < kGroup; ++j) {
      row[j] = panel + a.ids[at + j] * row_elements;
      const int64_t ahead = at + j + kAhead < a.listed ? at + j + kAhead : at + j;
      next[j] = panel + a.ids[ahead] * row_elements;
    }
    const float* x = a.x + at;
    struct None {};
    using Params = std::conditional_t<kBlocked, Block<kRows>, None>;
    const Params block = [&]() __attribute__((always_inline)) {
      if constexpr (kBlocked) return Params(a, p, at, x);
      else return Params{};
    }();
    for (int64_t c = 0; c < cols; c += kStep) {
#pragma GCC unroll 4
      for (int64_t j = 0; j < kGroup; ++j) __builtin_prefetch(next[j] + c / Line::kPer, 0, 2);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kStep; i += V::kLanes) {
        const int64_t s = c + i;
        V w[kGroup];
#pragma GCC unroll 4
        for (int64_t j = 0; j < kGroup; ++j) w[j] = Line::template load<VArch>(row[j] + c / Line::kPer, i);
        if constexpr (kBlocked) {
          if (i % 16 == 0) __builtin_prefetch(block.next + s, 0, 2);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          float* to = acc + r * a.width + s;
          V sum = first ? V::zero() : V::load(to);
          const float* v = x + r * a.ldx;
          if constexpr (kBlocked) {
            V codes = V::broadcast(v[0]) * w[0];
#pragma GCC unroll 4
            for (int64_t j = 1; j < kGroup; ++j) codes = V::fma(V::broadcast(v[j]), w[j], codes);
            sum = V::fma(codes, V::load(block.scale + s), sum);
            if (block.shift != nullptr) sum = V::fma(block.sum[r], V::load(block.shift + s), sum);
          } else {
#pragma GCC unroll 4
            for (int64_t j = 0; j < kGroup; ++j) sum = V::fma(V::broadcast(v[j]), w[j], sum);
          }
          sum.store(to);
        }
      }
    }
  }

  static void finish(const SparseInputArgs& a, int64_t n0, int64_t cols, const float* acc) {
    const Epilogue& e = a.epilogue;
    gemm::OutTile out{a.y + n0, a.ldy, nullptr, e.ld_residual, a.m, cols};
    if (e.residual != nullptr) out.residual = e.residual + n0;
    const V alpha = V::broadcast(e.alpha);
    const float* bias = e.bias == nullptr ? nullptr : e.bias + n0;
    const float* scale = a.scale == nullptr ? nullptr : a.scale + n0;
    gemm::write_tile<V, 0>(out, e.activation, [=](int64_t r, int64_t c, int64_t n) __attribute__((always_inline)) {
      const auto read = [=](const float* p) __attribute__((always_inline)) {
        return n == V::kLanes ? V::load(p + c) : V::load_partial(p + c, n);
      };
      const V sum = V::load(acc + r * a.width + c);
      const V factor = scale == nullptr ? alpha : alpha * read(scale);
      return bias == nullptr ? sum * factor : V::fma(sum, factor, read(bias));
    });
  }

  template <int kRows>
  static void panels(const SparseInputArgs& a, int64_t begin, int64_t end, float* acc) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t n0 = p * a.width, cols = a.n - n0 < a.width ? a.n - n0 : a.width;
      const int64_t padded = (cols + kSparseInputLine - 1) / kSparseInputLine * kSparseInputLine;
      const Element* panel = static_cast<const Element*>(a.w) + n0 * a.k / Line::kPer;
      if (a.listed == 0) {
        for (int64_t i = 0; i < kRows * a.width; ++i) acc[i] = 0.0F;
      }
      for (int64_t at = 0; at < a.listed; at += kGroup) {
        (a.block_params == nullptr ? group<kRows, false> : group<kRows, true>)(a, p, panel, at, padded, at == 0, acc);
      }
      finish(a, n0, cols, acc);
    }
  }

  static void run(const SparseInputArgs& a, int64_t begin, int64_t end, float* acc) {
    switch (a.m) {
      case 1: return panels<1>(a, begin, end, acc);
      case 2: return panels<2>(a, begin, end, acc);
      case 3: return panels<3>(a, begin, end, acc);
      case 4: return panels<4>(a, begin, end, acc);
      case 5: return panels<5>(a, begin, end, acc);
      case 6: return panels<6>(a, begin, end, acc);
      case 7: return panels<7>(a, begin, end, acc);
      case 8: return panels<8>(a, begin, end, acc);
      default: return;
    }
  }
};

template <class Arch, class Type>
inline constexpr SparseInputKernel kSparseInput = {Family<Arch, Type>::run};

}  // namespace sprun::kernels::sparse_input
