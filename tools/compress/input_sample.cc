#include "tools/compress/input_sample.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace sprun::compress {

InputSample::InputSample(int64_t k, int64_t total_samples, int64_t parts, int64_t rows)
    : k_(k),
      stride_(std::max<int64_t>(1, total_samples / parts)),
      rows_(rows),
      ranges_(k),
      with_padding_(k) {}

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
    add_part(x.as<float>(), sample * each, std::min(total, (sample + 1) * each),
             rows.subspan(first, end - first));
    first = end;
  }
}

void InputSample::add_part(const float* x, int64_t first, int64_t end,
                           std::span<const int64_t> rows) {
  using Row = Eigen::Map<const Eigen::RowVectorXf>;
  using Rows = Eigen::Map<const FloatMatrix>;
  for (int64_t row : rows) {
    const Vector values = Row(x + row * k_, k_).transpose().cast<double>();
    ranges_.add(values, values);
  }
  const Rows all(x + first * k_, end - first, k_);
  ChannelRanges own(k_);
  own.add(all.colwise().minCoeff().transpose().cast<double>(),
          all.colwise().maxCoeff().transpose().cast<double>());
  with_padding_.add(own.min, own.max);
  if (seen_++ % stride_ != 0) return;
  const auto available = static_cast<int64_t>(rows.size());
  const int64_t count = std::min(rows_, available);
  SamplePart part{FloatMatrix(count, k_), std::move(own)};
  for (int64_t i = 0; i < count; ++i)
    part.rows.row(i) = Row(x + rows[static_cast<size_t>(i * available / count)] * k_, k_);
  parts_.push_back(std::move(part));
}

}  // namespace sprun::compress
