// What calibration data tells about the input X[rows, K] of a linear layer.
#pragma once

#include <cstdint>
#include <limits>

#include "runtime/base/thread_pool.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

class InputStatistics {
 public:
  InputStatistics() = default;
  explicit InputStatistics(int64_t k) : gram_(Matrix::Zero(k, k)) {}

  int64_t k() const { return gram_.rows(); }
  int64_t rows() const { return rows_; }
  // Sum over rows of x x^T: symmetric, full.
  const Matrix& gram() const { return gram_; }
  // Sum of squares per column.
  Vector squares() const { return gram_.diagonal(); }
  // Smallest and largest element seen.
  float min() const { return min_; }
  float max() const { return max_; }

  // Those of x / s, whose elements lie between min and max.
  InputStatistics divided_by(const Vector& s, float min, float max) const;

  // Adds `rows` rows whose Gram matrix, K * K floats, is given.
  void add(int64_t rows, const float* gram, float min, float max);

 private:
  Matrix gram_;
  int64_t rows_ = 0;
  float min_ = std::numeric_limits<float>::max(), max_ = std::numeric_limits<float>::lowest();
};

// Errors of replacing W by V, both [N, K], as the calibration data sees them.
struct OutputError {
  double relative = 0;  // ||X W^T - X V^T||_F / ||X W^T||_F
  double cosine = 1;    // of X W^T and X V^T as vectors
};
OutputError output_error(const InputStatistics& inputs, const Matrix& w, const Matrix& v,
                         ThreadPool& pool);

}  // namespace sprun::compress
