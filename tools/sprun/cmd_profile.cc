// sprun profile: where the time of a run goes, step by step, against the peak of this machine.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/sprun/command.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"
#include "tools/sprun/peak.h"
#include "tools/sprun/stats.h"

namespace sprun::tools {
namespace {

using Json = nlohmann::ordered_json;

struct ProfileArgs {
  ModelArgs model;
  InputArgs input;
  int threads = 0, top = 0;
  int64_t warmup = 3, iterations = 20;
  bool by_op = false;
  std::string trace, json;
};

// One step, or all steps of one op.
struct Row {
  std::string name, op, kernel, regime, shape;
  int64_t steps = 1;
  double us = 0;  // median over the iterations
  double flops = 0, bytes = 0;

  double gflops() const { return us > 0 ? flops / us * 1e-3 : 0; }
  double gbytes() const { return us > 0 ? bytes / us * 1e-3 : 0; }
};

struct Measured {
  std::vector<Row> steps;
  std::vector<double> total_ms;
  std::vector<StepProfile> last;  // of one run, for the trace
};

Result<Measured> measure(Session& session, const ProfileArgs& args) {
  const Progress progress("profiling " + args.model.path);
  for (int64_t i = 0; i < args.warmup; ++i) SPRUN_TRY(timed_run(session).status());
  session.set_profiling(true);
  Measured measured;
  std::vector<std::vector<double>> us;
  for (int64_t i = 0; i < args.iterations; ++i) {
    SPRUN_ASSIGN(const double ms, timed_run(session));
    measured.total_ms.push_back(ms);
    const std::vector<StepProfile>& profile = session.profile();
    us.resize(profile.size());
    for (size_t s = 0; s < profile.size(); ++s) us[s].push_back(profile[s].duration_us);
  }
  measured.last = session.profile();
  for (size_t s = 0; s < measured.last.size(); ++s) {
    const StepProfile& p = measured.last[s];
    measured.steps.push_back(
        {p.name, p.op, p.kernel, p.regime, p.shape, 1, quantile(us[s], 0.5), p.flops, p.bytes});
  }
  return measured;
}

std::vector<Row> group_by_op(const std::vector<Row>& steps) {
  std::map<std::pair<std::string, std::string>, Row> groups;
  for (const Row& step : steps) {
    auto [it, added] = groups.try_emplace({step.op, step.kernel}, step);
    Row& row = it->second;
    row.name = step.op;
    row.shape.clear();
    if (added) continue;
    row.steps += 1;
    row.us += step.us;
    row.flops += step.flops;
    row.bytes += step.bytes;
  }
  std::vector<Row> rows;
  for (auto& [key, row] : groups) rows.push_back(std::move(row));
  return rows;
}

double peak_gops_for(const Row& row, const PeakRates& peak) {
  const auto has = [&](std::string_view part) {
    return row.kernel.find(part) != std::string::npos;
  };
  if (has("s8") || has("u8") || has("int8")) return peak.int8_gops;
  if (has("bf16") && peak.bf16_gflops > 0) return peak.bf16_gflops;
  return peak.f32_gflops;
}

// Percent of the peak that bounds the step: its regime's, or the nearer one if it states none.
// Negative: no figures.
double percent_of_peak(const Row& row, const PeakRates& peak) {
  const double compute_peak = peak_gops_for(row, peak);
  const double compute = compute_peak > 0 ? 100 * row.gflops() / compute_peak : 0;
  const double memory = peak.read_gbytes > 0 ? 100 * row.gbytes() / peak.read_gbytes : 0;
  if (row.regime == "compute-bound" && row.flops > 0) return compute;
  if (row.regime == "bandwidth-bound" && row.bytes > 0) return memory;
  return row.flops > 0 || row.bytes > 0 ? std::max(compute, memory) : -1;
}

std::vector<std::vector<std::string>> table_of(const std::vector<Row>& rows, double total_us,
                                               const PeakRates& peak, bool by_op) {
  std::vector<std::vector<std::string>> table(1);
  table[0] = {"us", "share",  "GFLOP/s", "GB/s", "%peak", by_op ? "steps" : "step",
              "op", "kernel", "shape"};
  for (const Row& row : rows) {
    const double percent = percent_of_peak(row, peak);
    table.push_back({fmt::format("{:.1f}", row.us),
                     fmt::format("{:.1f}%", total_us > 0 ? 100 * row.us / total_us : 0),
                     row.flops > 0 ? fmt::format("{:.1f}", row.gflops()) : "",
                     row.bytes > 0 ? fmt::format("{:.1f}", row.gbytes()) : "",
                     percent >= 0 ? fmt::format("{:.0f}%", percent) : "",
                     by_op ? std::to_string(row.steps) : row.name, row.op,
                     row.kernel.empty() ? "(plain loop)" : row.kernel, row.shape});
  }
  return table;
}

// One line for each sparse feed-forward layer.
std::string density_text(const std::vector<FfnDensity>& layers) {
  std::string text;
  for (const FfnDensity& layer : layers) {
    if (layer.measured < 0) continue;
    text += fmt::format("density {:.1f} % of {} rows{}  {}  {}\n", 100 * layer.measured, layer.rows,
                        layer.expected < 0 ? "" : fmt::format(", {:.1f} % expected", 100 * layer.expected),
                        layer.pattern, layer.name);
  }
  return text;
}

Json density_json(const std::vector<FfnDensity>& layers) {
  Json json = Json::array();
  for (const FfnDensity& layer : layers) {
    Json entry = {{"name", layer.name}, {"pattern", layer.pattern}, {"measured", layer.measured}, {"rows", layer.rows}};
    if (layer.expected >= 0) entry["expected"] = layer.expected;
    json.push_back(entry);
  }
  return json;
}

Json json_of(const ProfileArgs& args, const Session& session, const Measured& measured,
             const std::vector<Row>& rows, double total_us, const PeakRates& peak) {
  Json json = {{"model", args.model.path},
               {"precision", args.model.precision},
               {"isa", isa_in_use()},
               {"threads", session.num_threads()},
               {"iterations", args.iterations},
               {"latency_ms", to_json(latency_stats(measured.total_ms))},
               {"steps_us", round3(total_us)},
               {"peak", to_json(peak)},
               {"ffn_density", density_json(session.ffn_density())},
               {args.by_op ? "ops" : "steps", Json::array()}};
  for (const Row& row : rows) {
    const double percent = percent_of_peak(row, peak);
    Json entry = {{"name", row.name},
                  {"op", row.op},
                  {"kernel", row.kernel},
                  {"regime", row.regime},
                  {"shape", row.shape},
                  {"count", row.steps},
                  {"us", round3(row.us)},
                  {"share", total_us > 0 ? row.us / total_us : 0},
                  {"flops", row.flops},
                  {"bytes", row.bytes},
                  {"gflops", round3(row.gflops())},
                  {"gbytes_per_s", round3(row.gbytes())}};
    if (percent >= 0) entry["percent_of_peak"] = round3(percent);
    json[args.by_op ? "ops" : "steps"].push_back(std::move(entry));
  }
  return json;
}

// Chrome trace event format; opens in Perfetto and chrome://tracing.
Json trace_json(const std::vector<StepProfile>& steps) {
  Json events = Json::array();
  for (const StepProfile& p : steps) {
    events.push_back({{"name", p.name},
                      {"cat", p.op},
                      {"ph", "X"},
                      {"ts", p.start_us},
                      {"dur", p.duration_us},
                      {"pid", 1},
                      {"tid", 1},
                      {"args",
                       {{"op", p.op},
                        {"kernel", p.kernel},
                        {"regime", p.regime},
                        {"shape", p.shape},
                        {"flops", p.flops},
                        {"bytes", p.bytes}}}});
  }
  return {{"displayTimeUnit", "ms"}, {"traceEvents", events}};
}

Status profile(const ProfileArgs& args) {
  SPRUN_ASSIGN(const Loaded loaded, load_model(args.model));
  SPRUN_ASSIGN(const std::vector<NamedTensor> inputs, make_inputs(*loaded.model, args.input));
  SPRUN_ASSIGN(Session session, bound_session(loaded.model, inputs, args.threads));
  SPRUN_ASSIGN(const Measured measured, measure(session, args));
  const PeakRates peak = measure_peak(session.num_threads());
  double total_us = 0;
  for (const Row& row : measured.steps) total_us += row.us;
  std::vector<Row> rows = args.by_op ? group_by_op(measured.steps) : measured.steps;
  if (args.by_op || args.top > 0) {
    std::stable_sort(rows.begin(), rows.end(),
                     [](const Row& a, const Row& b) { return a.us > b.us; });
  }
  if (args.top > 0 && rows.size() > static_cast<size_t>(args.top))
    rows.resize(static_cast<size_t>(args.top));
  if (args.json != "-") {
    const LatencyStats stats = latency_stats(measured.total_ms);
    SPRUN_TRY(print(format_table(table_of(rows, total_us, peak, args.by_op))));
    SPRUN_TRY(print(fmt::format(
        "steps {:.3f} ms  run p50 {:.3f} ms  {} steps  {} threads  {}\npeak  {}\n", total_us * 1e-3,
        stats.p50, measured.steps.size(), session.num_threads(), isa_in_use(), to_text(peak))));
    SPRUN_TRY(print(density_text(session.ffn_density())));
  }
  if (!args.trace.empty()) SPRUN_TRY(write_json(args.trace, trace_json(measured.last)));
  if (args.json.empty()) return {};
  return write_json(args.json, json_of(args, session, measured, rows, total_us, peak));
}

}  // namespace

Action setup_profile(CLI::App& app) {
  auto args = std::make_shared<ProfileArgs>();
  add_model_options(app, args->model);
  add_input_options(app, args->input);
  app.add_option("--threads", args->threads, "Threads; 0: every core this process may use")
      ->check(CLI::Range(0, 1024));
  app.add_option("--warmup", args->warmup, "Runs before profiling")->check(CLI::NonNegativeNumber);
  app.add_option("--iterations", args->iterations, "Profiled runs; each step shows its median")
      ->check(CLI::PositiveNumber);
  app.add_option("--top", args->top, "Only the N slowest; 0: all, in the order they run")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--by-op", args->by_op, "Add up the steps of the same operator and kernel");
  app.add_option("--trace", args->trace,
                 "Write the last run as a Chrome trace (Perfetto opens it) to FILE");
  app.add_option("--json", args->json,
                 "Write the figures as JSON to FILE, or - for standard output");
  return [args] { return profile(*args); };
}

}  // namespace sprun::tools
