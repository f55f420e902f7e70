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

// Smallest and largest element of each channel; 0 is always between them, as int8 wants it.
struct ChannelRanges {
  Vector min, max;

  explicit ChannelRanges(int64_t k = 0) : min(Vector::Zero(k)), max(Vector::Zero(k)) {}
  void add(const Vector& low, const Vector& high) {
    min = min.cwiseMin(low);
    max = max.cwiseMax(high);
  }
  Vector max_abs() const { return min.cwiseAbs().cwiseMax(max.cwiseAbs()); }
};

// Rows that share the range of a dynamic layer, and that range. It is of all rows of the sample: a
// dynamic layer sees padding too.
struct SamplePart {
  FloatMatrix rows;
  ChannelRanges ranges;
};

class InputSample {
 public:
  // At most about `parts` samples of the data and `rows` rows of each are kept.
  InputSample(int64_t k, int64_t total_samples, int64_t parts = 24, int64_t rows = 16);

  // x[.., K] float32 of a batch of `samples`; rows: those that count, empty for all of them. Where
  // the first axis of x is not the samples, the batch is one part.
  void add(const Tensor& x, int64_t samples, std::span<const int64_t> rows);

  const std::vector<SamplePart>& parts() const { return parts_; }
  // Over all rows that count, and over all rows.
  const ChannelRanges& ranges() const { return ranges_; }
  const ChannelRanges& ranges_with_padding() const { return with_padding_; }

 private:
  // rows: those that count of the sample, which are rows first to end.
  void add_part(const float* x, int64_t first, int64_t end, std::span<const int64_t> rows);

  int64_t k_, stride_, rows_, seen_ = 0;
  std::vector<SamplePart> parts_;
  ChannelRanges ranges_, with_padding_;
};

}  // namespace sprun::compress
