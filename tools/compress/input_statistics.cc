#include "tools/compress/input_statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "tools/compress/block_choice.h"

namespace sprun::compress {
namespace {
// Rows of W that one task multiplies: enough to use each element of G many times.
constexpr int64_t kRows = 64;
}  // namespace

void InputStatistics::add(int64_t rows, const float* gram, float min, float max) {
  rows_ += rows;
  min_ = std::min(min_, min);
  max_ = std::max(max_, max);
  using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  gram_ += Eigen::Map<const Floats>(gram, k(), k()).cast<double>();
}

InputStatistics InputStatistics::divided_by(const Vector& s, float min, float max) const {
  InputStatistics divided;
  const Vector inverse = s.cwiseInverse();
  divided.gram_ = inverse.asDiagonal() * gram_ * inverse.asDiagonal();
  divided.rows_ = rows_;
  divided.min_ = min;
  divided.max_ = max;
  return divided;
}

// With G = X^T X:  ||X D^T||^2 = sum(D G * D).
OutputError output_error(const InputStatistics& inputs, const Matrix& w, const Matrix& v,
                         ThreadPool& pool) {
  std::vector<std::array<double, 3>> parts(static_cast<size_t>(block_count(w.rows(), kRows)));
  pool.parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end, int) {
    Matrix product;
    for (int64_t p = begin; p < end; ++p) {
      const int64_t first = p * kRows, count = std::min(kRows, w.rows() - first);
      const auto wp = w.middleRows(first, count), vp = v.middleRows(first, count);
      product.noalias() = wp * inputs.gram();
      const double ww = product.cwiseProduct(wp).sum(), wv = product.cwiseProduct(vp).sum();
      product.noalias() = (wp - vp) * inputs.gram();
      parts[static_cast<size_t>(p)] = {ww, wv, product.cwiseProduct(wp - vp).sum()};
    }
  });
  double ww = 0, wv = 0, dd = 0;
  for (const auto& part : parts) ww += part[0], wv += part[1], dd += part[2];
  if (!(ww > 0)) return {};
  const double vv = std::max(ww - 2 * (ww - wv) + dd, 0.0);
  return {std::sqrt(std::max(dd, 0.0) / ww), vv > 0 ? wv / std::sqrt(ww * vv) : 0};
}

}  // namespace sprun::compress
