#include "tools/sprun/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sprun::tools {
namespace {

double sorted_quantile(const std::vector<double>& sorted, double q) {
  if (sorted.empty()) return 0;
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<size_t>(position);
  const size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (sorted[high] - sorted[low]) * (position - static_cast<double>(low));
}

}  // namespace

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return sorted_quantile(values, q);
}

LatencyStats latency_stats(const std::vector<double>& milliseconds) {
  LatencyStats stats;
  if (milliseconds.empty()) return stats;
  std::vector<double> sorted = milliseconds;
  std::sort(sorted.begin(), sorted.end());
  stats.min = sorted.front();
  stats.p50 = sorted_quantile(sorted, 0.5);
  stats.p90 = sorted_quantile(sorted, 0.9);
  stats.p99 = sorted_quantile(sorted, 0.99);
  stats.mean =
      std::accumulate(sorted.begin(), sorted.end(), 0.0) / static_cast<double>(sorted.size());
  return stats;
}

double round3(double value) { return std::round(value * 1000) / 1000; }

nlohmann::ordered_json to_json(const LatencyStats& stats) {
  return {{"min", round3(stats.min)},
          {"p50", round3(stats.p50)},
          {"p90", round3(stats.p90)},
          {"p99", round3(stats.p99)},
          {"mean", round3(stats.mean)}};
}

}  // namespace sprun::tools
