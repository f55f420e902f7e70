#include "tools/compress/block_choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sprun::compress {
namespace {

void zero_block(const Pattern& pattern, int64_t block_row, int64_t block_col, Matrix& w) {
  const int64_t r = block_row * pattern.rows, c = block_col * pattern.cols;
  w.block(r, c, std::min(pattern.rows, w.rows() - r), std::min(pattern.cols, w.cols() - c))
      .setZero();
}

void zero_n_of_m(const Pattern& pattern, const Matrix& scores, Matrix& w) {
  std::vector<double> group;
  for (int64_t r = 0; r < w.rows(); ++r) {
    for (int64_t c = 0; c < w.cols(); c += pattern.of) {
      const int64_t size = std::min(pattern.of, w.cols() - c);
      group.assign(scores.row(r).data() + c, scores.row(r).data() + c + size);
      const auto zero = smallest(group, std::max<int64_t>(size - pattern.kept, 0));
      for (int64_t i = 0; i < size; ++i) {
        if (zero[static_cast<size_t>(i)]) w(r, c + i) = 0;
      }
    }
  }
}

}  // namespace

std::vector<uint8_t> smallest(const std::vector<double>& scores, int64_t count) {
  std::vector<uint8_t> chosen(scores.size(), 0);
  if (count <= 0) return chosen;
  std::vector<int64_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto less = [&](int64_t a, int64_t b) {
    const double x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    return x < y || (x == y && a < b);
  };
  const auto end = order.begin() + std::min(count, static_cast<int64_t>(order.size()));
  if (end != order.end()) std::nth_element(order.begin(), end, order.end(), less);
  for (auto it = order.begin(); it != end; ++it) chosen[static_cast<size_t>(*it)] = 1;
  return chosen;
}

std::vector<double> block_scores(const Matrix& scores, const Pattern& pattern) {
  const int64_t across = block_count(scores.cols(), pattern.cols);
  std::vector<double> sums(static_cast<size_t>(block_count(scores.rows(), pattern.rows) * across),
                           0);
  for (int64_t r = 0; r < scores.rows(); ++r) {
    double* row = sums.data() + r / pattern.rows * across;
    for (int64_t c = 0; c < scores.cols(); ++c) row[c / pattern.cols] += scores(r, c);
  }
  return sums;
}

void zero_smallest(const PruneSpec& spec, const Matrix& scores, Scope scope, Matrix& w) {
  if (spec.pattern.is_n_of_m()) return zero_n_of_m(spec.pattern, scores, w);
  const std::vector<double> sums = block_scores(scores, spec.pattern);
  const int64_t across = block_count(w.cols(), spec.pattern.cols);
  const auto total = static_cast<int64_t>(sums.size());
  const int64_t span = scope == Scope::kMatrix ? total : across;
  const int64_t count = std::llround(spec.sparsity * static_cast<double>(span));
  for (int64_t first = 0; first < total; first += span) {
    const auto zero = smallest({sums.begin() + first, sums.begin() + first + span}, count);
    for (int64_t i = 0; i < span; ++i) {
      const int64_t at = first + i;
      if (zero[static_cast<size_t>(i)]) zero_block(spec.pattern, at / across, at % across, w);
    }
  }
}

}  // namespace sprun::compress
