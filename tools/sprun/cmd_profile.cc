// sprun profile: where the time of a run goes, step by step, against the peak of this machine.
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
#include "tools/sprun/step_table.h"

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
               {args.by_op ? "ops" : "steps", rows_json(rows, total_us, peak)}};
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
  const double total_us = total_time(measured.steps);
  const std::vector<Row> rows = shown_rows(measured.steps, args.by_op, args.top);
  if (args.json != "-") {
    const LatencyStats stats = latency_stats(measured.total_ms);
    SPRUN_TRY(print(format_table(table_of(rows, total_us, peak, {.by_op = args.by_op}))));
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
