#include "tools/sprun/latency.h"

#include <chrono>

#include <fmt/format.h>

#include "tools/sprun/engine.h"
#include "tools/sprun/stats.h"

namespace sprun::tools {
namespace {

constexpr int kMinRuns = 5, kMaxRuns = 200;

double spread(const std::vector<double>& times, double median) {
  return median > 0 ? (quantile(times, 0.75) - quantile(times, 0.25)) / median : 0;
}

std::string shapes_of(const std::vector<NamedTensor>& inputs) {
  std::string text;
  for (const NamedTensor& input : inputs)
    text += fmt::format("{}{}{}", text.empty() ? "" : " ", input.name,
                        input.tensor.shape().to_string());
  return text;
}

}  // namespace

Result<compress::LatencyReport> compare_latency(const TimedModel& before, const TimedModel& after,
                                                int num_threads, double seconds) {
  SPRUN_ASSIGN(Session a, bound_session(before.model, before.inputs, num_threads));
  SPRUN_ASSIGN(Session b, bound_session(after.model, after.inputs, num_threads));
  for (Session* session : {&a, &b, &a, &b})
    SPRUN_TRY(timed_run(*session).status());  // plans, packs, warms
  std::vector<double> times_a, times_b;
  const auto start = std::chrono::steady_clock::now();
  for (int run = 0; run < kMaxRuns && (run < kMinRuns || ms_since(start) < 1000 * seconds); ++run) {
    SPRUN_ASSIGN(const double ms_a, timed_run(a));
    SPRUN_ASSIGN(const double ms_b, timed_run(b));
    times_a.push_back(ms_a);
    times_b.push_back(ms_b);
  }
  compress::LatencyReport report;
  report.before_ms = quantile(times_a, 0.5);
  report.after_ms = quantile(times_b, 0.5);
  report.before_spread = spread(times_a, report.before_ms);
  report.after_spread = spread(times_b, report.after_ms);
  report.runs = static_cast<int>(times_a.size());
  report.threads = a.num_threads();
  report.shapes = shapes_of(before.inputs);
  return report;
}

}  // namespace sprun::tools
