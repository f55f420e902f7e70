// How many units each site loses when a part of all units is to go, and which.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "sprun/tensor.h"
#include "tools/compress/input_statistics.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

// Sums and sums of squares of the columns of X[rows, K].
struct ColumnMoments {
  Vector sum, squares;
  int64_t rows = 0;

  Vector mean() const { return sum / static_cast<double>(rows); }
  Vector variance() const;
  // x[.., K]; counted: the rows that count, empty for all.
  void add(const Tensor& x, std::span<const int64_t> counted);
};

// A row of x, whatever its float type; `copy` holds it where it must be converted.
const float* float_row(const Tensor& x, int64_t row, int64_t k, std::vector<float>& copy);

// Per unit: sum over its inputs of Var(x_j) ||W_j||^2, the change of the layer's output, squared, that replacing the inputs
// by their means makes (FLAP, arXiv 2312.11983).
Vector unit_scores(const ColumnMoments& moments, const Matrix& w, std::span<const int32_t> unit, int64_t units);

// Units to remove from each site so that all lose `part` of theirs, as near as multiples allow. What is left is a multiple of
// `tile`, and never nothing. Uneven: the lowest scores go first, compared as deviations from the mean of their site.
std::vector<int64_t> removal_counts(std::span<const Vector> scores, double part, int64_t tile, bool even);

// The `count` units of lowest score, as a flag per unit that is false for them; ties by position.
std::vector<bool> keep_highest(const Vector& scores, int64_t count);

// What the layer's weights become when inputs go.
struct Refit {
  Matrix w;        // [N, K], zero for inputs that go
  Vector bias;     // to add to the output
  double error = 0, cosine = 1;  // of the output, as in LayerReport
};
// keep: per input. With a = x - mean over the data, kept inputs J, others P, C = E[a a^T]:
//   W'_J = W_J + W_P C_PJ (C_JJ + d I)^{-1}    d = damping * mean(diag(C_JJ)); without refit W'_J = W_J
//   bias = W mean - W' mean
// the least squares solution that is exact where removed inputs never change. kBadInput if numbers are not finite.
Result<Refit> refit_reader(const Matrix& w, const InputStatistics& inputs, const Vector& mean,
                           const std::vector<bool>& keep, double damping, bool least_squares, ThreadPool& pool);

}  // namespace sprun::compress
