#include "tools/compress/smoothing.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "tools/compress/constant_values.h"
#include "tools/compress/quantize.h"

namespace sprun::compress {
namespace {

constexpr std::array kPowers = {0.3, 0.5, 0.65, 0.8, 0.9, 1.0};
constexpr double kWorthIt = 0.9;  // of the error without
// Channels smaller than this part of the mean count as large as that: what was silent on the
// calibration data may speak later, and must not set the range then.
constexpr double kFloor = 0.1;

Vector floored(const Vector& v) {
  const double mean = v.size() > 0 ? v.mean() : 0;
  return v.cwiseMax(mean > 0 ? kFloor * mean : 1.0);
}

struct Steps {
  float scale, zero;
};

// Of input and weights.
double error_with(const InputSample& sample, const Matrix& w, const Vector& s, Int8Mode mode,
                  ThreadPool& pool) {
  const Matrix scaled = w * s.asDiagonal();
  return rounding_error(sample, w, round_to_int8(scaled, int8_scales(scaled)), s, mode, pool);
}

Steps steps_of(const ChannelRanges& ranges, const Vector& s) {
  const double low = std::min(0.0, ranges.min.cwiseQuotient(s).minCoeff());
  const double high = std::max(0.0, ranges.max.cwiseQuotient(s).maxCoeff());
  const double scale = high > low ? (high - low) / 255 : 1;
  return {static_cast<float>(scale), static_cast<float>(std::nearbyint(-low / scale))};
}

FloatMatrix rounded(FloatMatrix x, const Steps& steps) {
  for (int64_t i = 0; i < x.size(); ++i) {
    float& v = x.data()[i];
    v = (std::clamp(std::nearbyint(v / steps.scale) + steps.zero, 0.0F, 255.0F) - steps.zero) *
        steps.scale;
  }
  return x;
}

}  // namespace

Matrix stacked(std::span<const Matrix> parts) {
  int64_t rows = 0;
  for (const Matrix& part : parts) rows += part.rows();
  Matrix all(rows, parts.empty() ? 0 : parts[0].cols());
  rows = 0;
  for (const Matrix& part : parts) {
    all.middleRows(rows, part.rows()) = part;
    rows += part.rows();
  }
  return all;
}

double rounding_error(const InputSample& sample, const Matrix& w, const Matrix& coded,
                      const Vector& s, Int8Mode mode, ThreadPool& pool) {
  const FloatMatrix exact = w.cast<float>(), used = coded.cast<float>();
  const Eigen::RowVectorXf inverse = s.cwiseInverse().cast<float>().transpose();
  const Steps fixed = steps_of(sample.ranges(), s);
  const auto& parts = sample.parts();
  std::vector<double> sums(parts.size(), 0);
  pool.parallel_for(static_cast<int64_t>(parts.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t p = begin; p < end; ++p) {
      const SamplePart& part = parts[static_cast<size_t>(p)];
      const Steps steps = mode == Int8Mode::kStatic ? fixed : steps_of(part.ranges, s);
      const FloatMatrix y = part.rows * exact.transpose();
      const FloatMatrix got =
          rounded(part.rows.array().rowwise() * inverse.array(), steps) * used.transpose();
      for (int64_t r = 0; r < y.rows(); ++r) {
        const double size = double{y.row(r).squaredNorm()};
        if (size > 0)
          sums[static_cast<size_t>(p)] += double{(y.row(r) - got.row(r)).squaredNorm()} / size;
      }
    }
  });
  double sum = 0, rows = 0;
  for (size_t p = 0; p < parts.size(); ++p) {
    sum += sums[p];
    rows += static_cast<double>(parts[p].rows.rows());
  }
  return rows > 0 ? std::sqrt(sum / rows) : 0;
}

Smoothing choose_smoothing(const InputSample& sample, const Matrix& w, Int8Mode mode,
                           double fixed_power, ThreadPool& pool) {
  const ChannelRanges& ranges =
      mode == Int8Mode::kStatic ? sample.ranges() : sample.ranges_with_padding();
  const Vector x_max = floored(ranges.max_abs());
  const Vector w_max = floored(w.cwiseAbs().colwise().maxCoeff().transpose());
  Smoothing best;
  best.scale = Vector::Ones(w.cols());
  best.error_before = best.error_after = error_with(sample, w, best.scale, mode, pool);
  const auto attempt = [&](double power) {
    Vector s = x_max.array().pow(power) / w_max.array().pow(1 - power);
    s /= std::exp(s.array().log().mean());
    const double error = error_with(sample, w, s, mode, pool);
    const bool wanted = fixed_power >= 0 ||
                        error < (best.power < 0 ? kWorthIt * best.error_before : best.error_after);
    if (wanted) best = {power, std::move(s), best.error_before, error};
  };
  if (fixed_power >= 0) attempt(fixed_power);
  else
    for (double power : kPowers) attempt(power);
  return best;
}

Result<graph::ValueId> divide_channels(graph::Graph& graph, graph::ValueId x, const Vector& s,
                                       graph::NodeId like) {
  const std::string base = graph.value(x).name;
  const int version = graph.node(like).version;
  SPRUN_ASSIGN(const graph::ValueId factors,
               add_vector(graph, base + "_channel_factors", s.cwiseInverse()));
  return add_operation(graph, base + "_smoothed", "Mul", version, {x, factors});
}

}  // namespace sprun::compress
