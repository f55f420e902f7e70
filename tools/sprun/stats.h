// Summary of a list of latencies.
#pragma once

#include <vector>

#include <nlohmann/json.hpp>

namespace sprun::tools {

struct LatencyStats {
  double min = 0, p50 = 0, p90 = 0, p99 = 0, mean = 0;
};

// The q-quantile (0 <= q <= 1) with linear interpolation between neighbours; 0 for an empty list.
double quantile(std::vector<double> values, double q);
LatencyStats latency_stats(const std::vector<double>& milliseconds);
// {"min","p50","p90","p99","mean"}, rounded to a microsecond when they are milliseconds.
nlohmann::ordered_json to_json(const LatencyStats& stats);
// Three digits after the point.
double round3(double value);

}  // namespace sprun::tools
