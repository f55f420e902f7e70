// Bodies of the sparse-input family, instantiated per Arch by sparse_input_<isa>.cc.
//
// Four rows of weights are read side by side along a panel, so that sums are loaded and stored once for four inputs; a
// vector of weights is widened once for all rows of X. The rows after next are prefetched into L2: the list knows them.
#pragma once

#include "kernels/gemm/epilogue_impl.h"
#include "kernels/simd/stored.h"
#include "kernels/sparse_input/sparse_input_types.h"

namespace sprun::kernels::sparse_input {

template <class Arch, class Type>
struct Family {
  using Element = typename Type::Element;
  using VArch = simd::VecArch<Arch>;
  using V = simd::F32<VArch>;
  static constexpr int64_t kGroup = kSparseInputGroup;
  static constexpr int64_t kAhead = 2 * kGroup;
  static constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(Element));  // elements of a cache line
  static constexpr int64_t kStep = kLine > V::kLanes ? kLine : V::kLanes;

  // acc[r, 0..cols) (+)= sum over the group's inputs; overwrites when `first`.
  template <int kRows>
  static void group(const SparseInputArgs& a, const Element* panel, int64_t at, int64_t cols, bool first, float* acc) {
    const Element* row[kGroup];
    const Element* next[kGroup];
#pragma GCC unroll 4
    for (int64_t j = 0; j < kGroup; ++j) {
      row[j] = panel + a.ids[at + j] * a.width;
      const int64_t ahead = at + j + kAhead < a.listed ? at + j + kAhead : at + j;
      next[j] = panel + a.ids[ahead] * a.width;
    }
    const float* x = a.x + at;
    for (int64_t c = 0; c < cols; c += kStep) {
#pragma GCC unroll 4
      for (int64_t j = 0; j < kGroup; ++j) __builtin_prefetch(next[j] + c, 0, 2);
#pragma GCC unroll 4
      for (int64_t s = c; s < c + kStep; s += V::kLanes) {
        V w[kGroup];
#pragma GCC unroll 4
        for (int64_t j = 0; j < kGroup; ++j) w[j] = Type::template load<VArch>(row[j] + s);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          float* to = acc + r * a.width + s;
          V sum = first ? V::zero() : V::load(to);
#pragma GCC unroll 4
          for (int64_t j = 0; j < kGroup; ++j) sum = V::fma(V::broadcast(x[r * a.ldx + j]), w[j], sum);
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
      const Element* panel = static_cast<const Element*>(a.w) + n0 * a.k;
      if (a.listed == 0) {
        for (int64_t i = 0; i < kRows * a.width; ++i) acc[i] = 0.0F;
      }
      for (int64_t at = 0; at < a.listed; at += kGroup) group<kRows>(a, panel, at, padded, at == 0, acc);
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
