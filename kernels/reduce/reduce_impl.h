// Bodies of the reduce family, instantiated per Arch by reduce_<isa>.cc.
#pragma once

#include "kernels/reduce/reduce_types.h"
#include "kernels/simd/vec.h"

namespace sprun::kernels::reduce {

// What is added up; 0 adds nothing, so that missing lanes may be 0.
template <class Arch>
struct Plain {
  using V = simd::F32<Arch>;
  SPRUN_INLINE static V add(V acc, V x) { return acc + x; }
};

template <class Arch>
struct Absolute {
  using V = simd::F32<Arch>;
  SPRUN_INLINE static V add(V acc, V x) { return acc + V::abs(x); }
};

template <class Arch>
struct Squared {
  using V = simd::F32<Arch>;
  SPRUN_INLINE static V add(V acc, V x) { return V::fma(x, x, acc); }
};

template <class Arch, class Term>
SPRUN_INLINE float sum_block(const float* x, int64_t n) {
  using V = simd::F32<Arch>;
  V s0 = V::zero(), s1 = V::zero(), s2 = V::zero(), s3 = V::zero();
  int64_t i = 0;
  for (; i + 4 * V::kLanes <= n; i += 4 * V::kLanes) {
    s0 = Term::add(s0, V::load(x + i));
    s1 = Term::add(s1, V::load(x + i + V::kLanes));
    s2 = Term::add(s2, V::load(x + i + 2 * V::kLanes));
    s3 = Term::add(s3, V::load(x + i + 3 * V::kLanes));
  }
  for (; i + V::kLanes <= n; i += V::kLanes) s0 = Term::add(s0, V::load(x + i));
  if (i < n) s1 = Term::add(s1, V::load_partial(x + i, n - i));
  return ((s0 + s1) + (s2 + s3)).reduce_add();
}

template <class Arch, class Term>
void sum_fn(const float* x, int64_t rows, int64_t n, int64_t ld, float* y) {
  constexpr int64_t kBlock = 1024;
  for (int64_t r = 0; r < rows; ++r, x += ld) {
    double sum = 0;
    for (int64_t i = 0; i < n; i += kBlock) {
      sum += static_cast<double>(sum_block<Arch, Term>(x + i, n - i < kBlock ? n - i : kBlock));
    }
    y[r] = static_cast<float>(sum);
  }
}

template <class Arch, bool kMax>
void order_fn(const float* x, int64_t rows, int64_t n, int64_t ld, float* y) {
  using V = simd::F32<Arch>;
  const auto better = [](float a, float b) __attribute__((always_inline)) {
    return kMax ? a > b : a < b;
  };
  for (int64_t r = 0; r < rows; ++r, x += ld) {
    V best = V::broadcast(kMax ? -__builtin_inff() : __builtin_inff());
    V sum = V::zero();  // x * 0 adds up to NaN if there is a NaN (or an infinity, looked at below)
    int64_t i = 0;
    for (; i + V::kLanes <= n; i += V::kLanes) {
      const V v = V::load(x + i);
      best = kMax ? V::max(best, v) : V::min(best, v);
      sum = V::fma(v, V::zero(), sum);
    }
    float result = kMax ? best.reduce_max() : best.reduce_min();
    float poison = sum.reduce_add();
    for (; i < n; ++i) {
      result = better(x[i], result) ? x[i] : result;
      poison += x[i] * 0.0F;
    }
    y[r] = result;
    if (poison == 0.0F) continue;
    for (i = 0; i < n; ++i) {
      if (x[i] != x[i]) y[r] = x[i];
    }
    // A NaN in `best` lost or won by position; without a NaN in the row nothing above was wrong.
  }
}

template <class Arch>
inline constexpr ReduceKernel kReduce = {sum_fn<Arch, Plain<Arch>>, sum_fn<Arch, Absolute<Arch>>,
                                         sum_fn<Arch, Squared<Arch>>, order_fn<Arch, true>,
                                         order_fn<Arch, false>};

}  // namespace sprun::kernels::reduce
