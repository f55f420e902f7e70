// Loops that reach the peak rate of one core: what `sprun devices` and `sprun profile` compare
// with.
//
//   fn(iterations) does kAccumulators independent multiply-add instructions per iteration, on
//   registers only, and returns the number of operations done; a multiply and an add count as two.
// Threads: none; callers run one per core. Errors: none. Numbers: constant and finite, without
// meaning.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/isa.h"

namespace sprun::kernels {

inline constexpr int kPeakAccumulators = 12;

enum class PeakKind : uint8_t { kF32, kBf16, kInt8 };
using PeakFn = double(int64_t iterations);

struct PeakKernel {
  std::string_view name;
  Isa isa;
  PeakKind kind;
  PeakFn* fn;
};

// Fastest first for each kind.
std::span<const PeakKernel> peak_kernels();
// The first of its kind that `allowed` has; nullptr if there is none.
const PeakKernel* find_peak_kernel(PeakKind kind, IsaSet allowed);

}  // namespace sprun::kernels
