#include "tools/compress/input_sample.h"

#include <algorithm>
#include <numeric>

namespace sprun::compress {

InputSample::InputSample(int64_t k, int64_t total_samples, int64_t parts, int64_t rows)
    : k_(k),
      stride_(std::max<int64_t>(1, total_samples / parts)),
      rows_(rows),
      min_(Vector::Zero(k)),
      max_(Vector::Zero(k)) {}

void InputSample::add(const Tensor& x, int64_t samples, std::span<const int64_t> rows) {
  std::vector<int64_t> all;
  const int64_t total = k_ > 0 ? x.num_elements() / k_ : 0;
  if (rows.empty()) {
    all.resize(static_cast<size_t>(total));
    std::iota(all.begin(), all.end(), int64_t{0});
    rows = all;
  }
  const bool by_sample = x.shape().rank() > 1 && x.shape()[0] == samples && samples > 0;
  const int64_t each =
      by_sample ? std::max<int64_t>(1, total / samples) : std::max<int64_t>(1, total);
  for (size_t first = 0; first < rows.size();) {
    const int64_t sample = rows[first] / each;
    size_t end = first + 1;
    while (end < rows.size() && rows[end] / each == sample) ++end;
    add_part(x.as<float>(), rows.subspan(first, end - first));
    first = end;
  }
}

// Zero is in every range, as int8 wants it.
void InputSample::add_part(const float* x, std::span<const int64_t> rows) {
  using Row = Eigen::Map<const Eigen::RowVectorXf>;
  Eigen::RowVectorXf low = Eigen::RowVectorXf::Zero(k_), high = low;
  for (int64_t row : rows) {
    low = low.cwiseMin(Row(x + row * k_, k_));
    high = high.cwiseMax(Row(x + row * k_, k_));
  }
  min_ = min_.cwiseMin(low.transpose().cast<double>());
  max_ = max_.cwiseMax(high.transpose().cast<double>());
  if (seen_++ % stride_ != 0) return;
  const auto available = static_cast<int64_t>(rows.size());
  const int64_t count = std::min(rows_, available);
  SamplePart part{FloatMatrix(count, k_), low.transpose().cast<double>(),
                  high.transpose().cast<double>()};
  for (int64_t i = 0; i < count; ++i)
    part.rows.row(i) = Row(x + rows[static_cast<size_t>(i * available / count)] * k_, k_);
  parts_.push_back(std::move(part));
}

}  // namespace sprun::compress
