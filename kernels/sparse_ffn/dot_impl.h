// Products of rows of weights, four neurons at a time, with rows of x: inputs are the lanes, sums
// of four neurons and up to kTokens rows of x stay in registers. The same walk for every element
// type; Ops says what a product is:
//
//   T          element of x and of the rows          Sum        element of the result
//   V          a register of sums: zero(), reduce_add()
//   A, x(p)    the operand of x from its elements    w(p)       that of a row
//   kStep      elements of a register                accumulate(V&, A, w)
#pragma once

#include "kernels/sparse_ffn/rows_impl.h"

namespace sprun::kernels::sparse_ffn {

template <class Ops, int kTokens>
struct DotRows {
  using T = typename Ops::T;
  using Sum = typename Ops::Sum;
  using V = typename Ops::V;

  // Elements [k, k + kStep) of four rows.
  template <int kTok, bool kFetch>
  SPRUN_INLINE static void step(const FfnDotArgs& a, const GroupRows& rows, const T* x, int64_t k,
                                V (&acc)[kFfnGroup][kTok]) {
    typename Ops::A in[kTok];
#pragma GCC unroll 4
    for (int t = 0; t < kTok; ++t) in[t] = Ops::x(x + t * a.ldx + k);
#pragma GCC unroll 4
    for (int r = 0; r < kFfnGroup; ++r) {
      const auto w = Ops::w(reinterpret_cast<const T*>(rows.row[r]) + k);
      if constexpr (kFetch) fetch(rows.next[r] + k * static_cast<int64_t>(sizeof(T)));
#pragma GCC unroll 4
      for (int t = 0; t < kTok; ++t) Ops::accumulate(acc[r][t], in[t], w);
    }
  }

  template <int kTok, bool kFetch>
  static void dot_group(const FfnDotArgs& a, int64_t i, int64_t t0) {
    const GroupRows rows(a, i);
    const T* x = static_cast<const T*>(a.x) + t0 * a.ldx;
    V acc[kFfnGroup][kTok];
#pragma GCC unroll 4
    for (int r = 0; r < kFfnGroup; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kTok; ++t) acc[r][t] = V::zero();
    }
    int64_t k = 0;
    int64_t back = a.k - Ops::kStep;
    while (k < back) {
      step<kTok, kFetch>(a, rows, x, k, acc);
      step<kTok, kFetch>(a, rows, x, back, acc);
      k += Ops::kStep;
      back -= Ops::kStep;
      asm("" : "+r"(k));  // in this form g++ 12 keeps the sums in their registers
    }
    if (k == back) step<kTok, kFetch>(a, rows, x, k, acc);
    Sum* sums = static_cast<Sum*>(a.sums) + t0 * a.ld_sums + i;
#pragma GCC unroll 4
    for (int t = 0; t < kTok; ++t) {
#pragma GCC unroll 4
      for (int r = 0; r < kFfnGroup; ++r) sums[t * a.ld_sums + r] = acc[r][t].reduce_add();
    }
  }

  using DotFn = void(const FfnDotArgs&, int64_t, int64_t);
  template <int kTok, bool kFetch>
  static constexpr DotFn* kDotAt = dot_group<(kTok <= kTokens ? kTok : 1), kFetch>;
  template <bool kFetch>
  static constexpr DotFn* kDot[4] = {kDotAt<1, kFetch>, kDotAt<2, kFetch>, kDotAt<3, kFetch>,
                                     kDotAt<4, kFetch>};

  // A group's last places may be past the list: sums have room for whole groups.
  static void dot(const FfnDotArgs& a) {
    const int64_t passes = (a.tokens + kTokens - 1) / kTokens;
    for (int64_t i = 0; i < a.count; i += kFfnGroup) {
      for (int64_t p = 0; p < passes; ++p) {
        const int64_t t0 = p * a.tokens / passes;
        const int64_t count = (p + 1) * a.tokens / passes - t0;
        (p == 0 && !a.cached ? kDot<true> : kDot<false>)[count - 1](a, i, t0);
      }
    }
  }
};

}  // namespace sprun::kernels::sparse_ffn
