// Which entries of a row matter: the statistical threshold of a Gaussian row, and exact top-k.
//
//   const TopKKernel& kernel = *select(topk_kernels(), available_isas()).kernel;
//   StatTopKArgs args{.x = g, .ldx = d, .rows = 1, .d = d, .z = stat_top_k_z(k, d)};
//   args.ids = ids; args.counts = counts; args.theta = theta;
//   stat_top_k(kernel, args);
//
// Statistical: theta = mean(x) + std(x) z with z = Q(1 - k/d), Q the standard normal quantile. For
//   Gaussian x about k of d entries lie above theta; one pass for the moments, one for the list.
// Exact: the k largest x[i], or |x[i]|; equal ones by lower index, as ONNX TopK orders them.
//   NaN counts as larger than everything.
// Numeric: moments and theta in double, theta rounded to float once: the set is that of a double
//   reference but for |x - theta| < 1e-6 std.
// Regime:  bandwidth-bound in cache: a row is read twice, three times for exact top-k.
// Threads: none; rows are independent.  Errors: none; preconditions are the caller's.
// Source:  statistical top-k: Spark Transformer (arXiv 2506.06644).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/registry.h"
#include "kernels/topk/topk_types.h"

namespace sprun::kernels {

std::span<const KernelInfo<TopKKernel>> topk_kernels();

// Q(p): the x whose standard normal distribution function is p. Relative error below 1e-13 where
// p is not within 1e-9 of 1/2, absolute below 1e-16 there. -inf at 0, +inf at 1, NaN outside.
double gaussian_quantile(double p);

// Q(1 - k/d) for 0 <= k <= d; +inf for k = 0.
double stat_top_k_z(int64_t k, int64_t d);

// mean + z std of n values, from their sums. ddof 0: divide by n (population), 1: by n - 1. A
// variance that rounding made negative counts as 0, n = 0 gives 0.
float stat_threshold(double sum, double sum_squares, int64_t n, double z, int ddof);

struct StatTopKArgs {
  const float* x = nullptr;  // [rows, d]
  int64_t ldx = 0, rows = 0, d = 0;
  double z = 0;
  int ddof = 0;
  float* theta = nullptr;     // [rows]; may be null
  int32_t* ids = nullptr;     // [rows, ld_ids] indices above theta, ascending
  float* values = nullptr;    // [rows, ld_ids] x - theta of these; may be null
  int64_t ld_ids = 0;         // >= d + kIndexSlack
  int64_t* counts = nullptr;  // [rows]
};
void stat_top_k(const TopKKernel& kernel, const StatTopKArgs& args);

// Where an exact top-k cuts: entries whose key is above `key` are kept, and the first `ties` of
// those that equal it.
struct TopKCut {
  uint32_t key;
  int64_t ties;
};

// Orders floats as unsigned integers; by_abs orders |x|.
constexpr uint32_t top_k_key(float x, bool by_abs) {
  const uint32_t bits = x == 0.0F ? 0U : __builtin_bit_cast(uint32_t, x);  // -0 equals 0
  if (by_abs) return bits & 0x7fffffffU;
  if ((bits & 0x7fffffffU) > 0x7f800000U) return 0xffffffffU;  // NaN, whatever its sign
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

// Bytes of scratch that top_k_cut() takes for rows of up to n elements.
constexpr int64_t top_k_scratch_bytes(int64_t n) { return 4 * (n + 4096); }

// The cut that keeps min(k, n) of x[0, n).
TopKCut top_k_cut(const float* x, int64_t n, int64_t k, bool by_abs, void* scratch);

// Writes the indices that the cut keeps, ascending; returns how many.
int64_t top_k_ids(const float* x, int64_t n, bool by_abs, TopKCut cut, int32_t* ids);

// y[i] = x[i] where the cut keeps it, else 0. y may be x.
void top_k_keep(const float* x, int64_t n, bool by_abs, TopKCut cut, float* y);

}  // namespace sprun::kernels
