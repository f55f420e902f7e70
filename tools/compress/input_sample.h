// Some rows of the input of a linear layer, and the range of each of its channels, from calibration
// data: enough to try out how int8 rounds it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sprun/tensor.h"
#include "tools/compress/matrix.h"

namespace sprun::compress {

using FloatMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Rows that share the range of a dynamic layer, and that range per channel.
struct SamplePart {
  FloatMatrix rows;
  Vector min, max;
};

class InputSample {
 public:
  // At most about `parts` samples of the data and `rows` rows of each are kept.
  InputSample(int64_t k, int64_t total_samples, int64_t parts = 24, int64_t rows = 16);

  // x[.., K] float32 of a batch of `samples`; rows: those that count, empty for all of them. Where
  // the first axis of x is not the samples, the batch is one part.
  void add(const Tensor& x, int64_t samples, std::span<const int64_t> rows);

  const std::vector<SamplePart>& parts() const { return parts_; }
  // Over all rows seen.
  const Vector& min() const { return min_; }
  const Vector& max() const { return max_; }
  Vector max_abs() const { return min_.cwiseAbs().cwiseMax(max_.cwiseAbs()); }

 private:
  void add_part(const float* x, std::span<const int64_t> rows);

  int64_t k_, stride_, rows_, seen_ = 0;
  std::vector<SamplePart> parts_;
  Vector min_, max_;
};

}  // namespace sprun::compress
