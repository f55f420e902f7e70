// The zeros of constant weights: found once per weight at load, kept in the model's cache of packed weights.
#pragma once

#include <array>
#include <span>
#include <string>

#include "graph/ops/linear_segments.h"
#include "kernels/bsr/non_zeros.h"

namespace sprun::graph {

// Patterns that are measured, as "outputs x inputs".
struct NamedPattern {
  kernels::BlockShape block;
  std::string_view name;
};
inline constexpr std::array<NamedPattern, 7> kPatterns = {{{kernels::kBlock1x1, "unstructured"},
                                                           {kernels::kBlock4x1, "4x1"},
                                                           {kernels::kBlock1x4, "1x4"},
                                                           {kernels::kBlock4x4, "4x4"},
                                                           {kernels::kBlock16x1, "16x1"},
                                                           {kernels::kBlock16x4, "16x4"},
                                                           {kernels::kBlock32x32, "32x32"}}};

struct WeightZeros {
  std::array<double, kPatterns.size()> density{};  // stored blocks / all blocks, by kPatterns
  // Kept of each group of inputs, 0 when it is no such weight: 2 of 4, 1 of 4, 4 of 8.
  int n_of_m = 0, of_m = 0;
  int64_t stored_min = 0, stored_max = 0;  // W - zero point of integer weights
  bool only_sampled = false;               // next to no zeros in a sample: nothing else is known

  double density_of(kernels::BlockShape block) const;
};

// The weight as stored: its zero points as int32 (empty: 0; one element, or one per output) in the numbers of the file.
struct SparseSource {
  WeightConstant weight;
  std::span<const int32_t> zero_point;
};

// Bits of f32, f16, bf16, s8 and u8 constants at any alignment.
kernels::NonZeros non_zeros_of(const SparseSource& source);

WeightZeros measure_zeros(const SparseSource& source);
// From the cache, or measured now. kResourceLimit when memory is short.
Result<WeightZeros> weight_zeros(PackedCache& cache, const SparseSource& source);

// "1x1 density 0.10, 4x1 0.11, ..": what inspect and explain print.
std::string describe_zeros(const WeightZeros& zeros);

}  // namespace sprun::graph
