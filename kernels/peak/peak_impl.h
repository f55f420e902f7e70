// The loop of every peak kernel. Step::apply(acc, x, y) is one instruction (or the shortest
// sequence) that multiplies and adds Step::kOps operations into acc; it must be opaque to the
// optimiser where the values are constant.
#pragma once

#include <cstdint>

namespace sprun::kernels::peak {

// As many accumulators as kPeakAccumulators in peak.h.
inline constexpr int kAccumulators = 12;

template <class Step>
[[gnu::always_inline]] inline double loop(int64_t iterations) {
  typename Step::Reg acc[kAccumulators];
  const typename Step::Reg x = Step::initial(), y = Step::initial();
  // All three loops are unrolled: one that is not keeps the accumulators in memory.
#pragma GCC unroll 12
  for (int a = 0; a < kAccumulators; ++a) acc[a] = Step::initial();
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (int a = 0; a < kAccumulators; ++a) Step::apply(acc[a], x, y);
  }
#pragma GCC unroll 12
  for (int a = 0; a < kAccumulators; ++a) Step::keep(acc[a]);
  return static_cast<double>(iterations) * kAccumulators * Step::kOps;
}

}  // namespace sprun::kernels::peak
