// sprun run: one model on given or made-up inputs.
#include <algorithm>
#include <iostream>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tools/sprun/command.h"
#include "tools/sprun/compare.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"
#include "tools/sprun/io/tensor_files.h"
#include "tools/sprun/stats.h"

namespace sprun::tools {
namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

constexpr int64_t kDefaultIterations = 10;
constexpr double kDefaultSeconds = 3;

struct RunArgs {
  ModelArgs model;
  InputArgs input;
  ToleranceArgs tolerance;
  std::string output, compare, json;
  int threads = 0;
  int64_t warmup = 1, iterations = 0;
  double seconds = 0, deadline_ms = 0;
  bool loop = false;
};

struct Timing {
  double first_ms = 0;
  std::vector<double> latency_ms;
};

Result<double> one_run(Session& session, const RunArgs& args) {
  if (args.deadline_ms <= 0) return timed_run(session);
  const auto start = Clock::now();
  const auto budget = std::chrono::duration_cast<Clock::duration>(
      std::chrono::duration<double, std::milli>(args.deadline_ms));
  SPRUN_TRY(session.run({.stop = stop_token(), .deadline = start + budget}));
  return ms_since(start);
}

// The first run counts as warm-up; without warm-up it is the first measurement.
Result<Timing> measure(Session& session, const RunArgs& args) {
  const Progress progress("running " + args.model.path);
  Timing timing;
  SPRUN_ASSIGN(timing.first_ms, one_run(session, args));
  for (int64_t i = 1; i < args.warmup; ++i) SPRUN_TRY(one_run(session, args).status());
  const bool by_time = args.seconds > 0;
  const bool by_count = args.iterations > 0;
  const int64_t limit = by_count  ? args.iterations
                        : by_time ? std::numeric_limits<int64_t>::max()
                                  : kDefaultIterations;
  const double budget_ms = 1000 * (by_time    ? args.seconds
                                   : by_count ? std::numeric_limits<double>::infinity()
                                              : kDefaultSeconds);
  if (args.warmup == 0) timing.latency_ms.push_back(timing.first_ms);
  const auto start = Clock::now();
  while (static_cast<int64_t>(timing.latency_ms.size()) < limit) {
    if (!timing.latency_ms.empty() && ms_since(start) >= budget_ms) break;
    SPRUN_ASSIGN(const double ms, one_run(session, args));
    timing.latency_ms.push_back(ms);
  }
  return timing;
}

Result<std::vector<NamedTensor>> copy_outputs(const Session& session) {
  std::vector<NamedTensor> outputs;
  for (const TensorSpec& spec : session.model().outputs()) {
    SPRUN_ASSIGN(const ConstTensorView view, session.output(spec.name));
    SPRUN_ASSIGN(Tensor copy, Tensor::copy_of(view));
    outputs.push_back({spec.name, std::move(copy)});
  }
  return outputs;
}

std::string describe(const ConstTensorView& view) {
  return std::string(dtype_name(view.dtype)) + view.shape.to_string();
}

// "min -1.2  max 3.4  mean 0.1  [0.5, 0.25, 1, ...]"
std::string summarise(const ConstTensorView& view) {
  const int64_t n = view.num_elements();
  if (n == 0 || dtype_size(view.dtype) == 0) return "";
  double low = std::numeric_limits<double>::infinity(), high = -low, sum = 0;
  int64_t odd = 0;  // NaN or infinite
  std::string head;
  for (int64_t i = 0; i < n; ++i) {
    const double v = element(view, i);
    if (i < 4) head += fmt::format("{}{:.5g}", i > 0 ? ", " : "", v);
    if (!std::isfinite(v)) {
      ++odd;
      continue;
    }
    low = std::min(low, v);
    high = std::max(high, v);
    sum += v;
  }
  std::string text = fmt::format("[{}{}]", head, n > 4 ? ", ..." : "");
  if (odd < n)
    text += fmt::format("  min {:.5g}  max {:.5g}  mean {:.5g}", low, high,
                        sum / static_cast<double>(n - odd));
  return odd > 0 ? text + fmt::format("  {} not finite", odd) : text;
}

struct CompareReport {
  Json json = Json::array();
  std::string text;
  Status status;  // kMismatch if any output differs
};

Result<CompareReport> compare_outputs(const std::vector<NamedTensor>& outputs,
                                      const std::vector<NamedTensor>& expected,
                                      const Tolerances& tolerances) {
  CompareReport report;
  for (const NamedTensor& want : expected) {
    const auto got = std::find_if(outputs.begin(), outputs.end(),
                                  [&](const auto& t) { return t.name == want.name; });
    if (got == outputs.end()) {
      return Status(Code::kBadInput,
                    fmt::format("--compare: the model has no output '{}'", want.name));
    }
    const Comparison c = compare_tensors(want.name, got->tensor.view(), want.tensor.view(),
                                         tolerances.for_output(want.name));
    report.text += fmt::format("compare  {}  {}  max |difference| {:.3g}  cosine {:.7f}\n", c.name,
                               c.equal ? "ok" : "MISMATCH", c.max_abs_diff, c.cosine);
    report.json.push_back({{"name", c.name},
                           {"equal", c.equal},
                           {"max_abs_diff", c.max_abs_diff},
                           {"cosine", c.cosine},
                           {"detail", c.detail}});
    if (!c.equal && report.status.ok()) {
      report.status = Status(Code::kMismatch, fmt::format("output '{}': {}", c.name, c.detail));
    }
  }
  if (expected.empty()) return Status(Code::kBadInput, "--compare: no expected outputs found");
  return report;
}

Json run_json(const RunArgs& args, const Loaded& loaded, const Session& session,
              const Timing& timing, const std::vector<NamedTensor>& outputs) {
  Json json = {{"model", args.model.path},
               {"precision", args.model.precision},
               {"isa", isa_in_use()},
               {"threads", session.num_threads()},
               {"load_ms", round3(loaded.load_ms)},
               {"first_ms", round3(timing.first_ms)},
               {"latency_ms", to_json(latency_stats(timing.latency_ms))},
               {"iterations", timing.latency_ms.size()},
               {"peak_rss_bytes", peak_rss_bytes()},
               {"arena_bytes", session.arena_bytes()},
               {"weight_bytes", loaded.model->constant_bytes()},
               {"outputs", Json::array()}};
  for (const NamedTensor& output : outputs) {
    const auto dims = output.tensor.shape().dims();
    json["outputs"].push_back({{"name", output.name},
                               {"dtype", dtype_name(output.tensor.dtype())},
                               {"shape", std::vector<int64_t>(dims.begin(), dims.end())}});
  }
  return json;
}

std::string run_text(const RunArgs& args, const Loaded& loaded, const Session& session,
                     const Timing& timing, const std::vector<NamedTensor>& inputs,
                     const std::vector<NamedTensor>& outputs) {
  std::string text;
  for (const NamedTensor& t : inputs)
    text += fmt::format("input    {}  {}\n", t.name, describe(t.tensor.view()));
  for (const NamedTensor& t : outputs) {
    text += fmt::format("output   {}  {}  {}\n", t.name, describe(t.tensor.view()),
                        summarise(t.tensor.view()));
  }
  const LatencyStats stats = latency_stats(timing.latency_ms);
  constexpr double kMib = 1024.0 * 1024.0;
  text += fmt::format(
      "latency  p50 {:.3f} ms  p90 {:.3f}  p99 {:.3f}  min {:.3f}  ({} runs, {} thread{}, {}, "
      "{})\n",
      stats.p50, stats.p90, stats.p99, stats.min, timing.latency_ms.size(), session.num_threads(),
      session.num_threads() == 1 ? "" : "s", args.model.precision, isa_in_use());
  text += fmt::format("load     {:.1f} ms  first run {:.3f} ms\n", loaded.load_ms, timing.first_ms);
  text += fmt::format(
      "memory   peak {:.1f} MiB  weights {:.1f}  arena {:.1f}\n",
      static_cast<double>(peak_rss_bytes()) / kMib,
      static_cast<double>(loaded.model->constant_bytes()) / kMib,
      static_cast<double>(session.arena_bytes()) / kMib);
  return text;
}

// For harnesses that alternate engines: answers commands on standard input with one JSON line each.
//   run N   {"latency_ms":[...]}
//   memory  {"peak_rss_bytes":..,"arena_bytes":..,"weight_bytes":..}
// Ends at the end of the input.
Status serve_loop(const Loaded& loaded, Session& session, const RunArgs& args) {
  SPRUN_ASSIGN(const Timing timing, measure(session, args));
  Json hello = {{"load_ms", loaded.load_ms}, {"first_ms", timing.first_ms}};
  SPRUN_TRY(print(dump_json(hello, -1) + "\n"));
  std::string word;
  while (std::cin >> word) {
    Json answer;
    if (word == "run") {
      int64_t count = 0;
      if (!(std::cin >> count) || count < 1) return {Code::kUsage, "--loop: run N"};
      for (int64_t i = 0; i < count; ++i) {
        SPRUN_ASSIGN(const double ms, timed_run(session));
        answer["latency_ms"].push_back(ms);
      }
    } else if (word == "memory") {
      answer = {{"peak_rss_bytes", peak_rss_bytes()},
                {"arena_bytes", session.arena_bytes()},
                {"weight_bytes", loaded.model->constant_bytes()}};
    } else {
      return {Code::kUsage, "--loop: unknown command " + word};
    }
    SPRUN_TRY(print(dump_json(answer, -1) + "\n"));
  }
  return {};
}

Status run(const RunArgs& args) {
  SPRUN_ASSIGN(const Tolerances tolerances, Tolerances::create(args.tolerance));
  SPRUN_ASSIGN(const Loaded loaded, load_model(args.model));
  std::vector<std::string> names;
  for (const TensorSpec& spec : loaded.model->outputs()) names.push_back(spec.name);
  SPRUN_TRY(tolerances.check_names(names));
  std::vector<NamedTensor> expected;
  if (!args.compare.empty()) {
    SPRUN_ASSIGN(expected,
                 read_tensors(args.compare, TensorRole::kOutput, loaded.model->outputs()));
  }
  SPRUN_ASSIGN(const std::vector<NamedTensor> inputs, make_inputs(*loaded.model, args.input));
  SPRUN_ASSIGN(Session session, bound_session(loaded.model, inputs, args.threads));
  if (args.loop) return serve_loop(loaded, session, args);
  SPRUN_ASSIGN(const Timing timing, measure(session, args));
  SPRUN_ASSIGN(const std::vector<NamedTensor> outputs, copy_outputs(session));
  if (!args.output.empty()) SPRUN_TRY(write_tensors(args.output, outputs));
  CompareReport report;
  if (!args.compare.empty()) {
    SPRUN_ASSIGN(report, compare_outputs(outputs, expected, tolerances));
  }
  if (args.json != "-") {
    SPRUN_TRY(print(run_text(args, loaded, session, timing, inputs, outputs) + report.text));
  }
  if (!args.json.empty()) {
    Json json = run_json(args, loaded, session, timing, outputs);
    if (!args.compare.empty()) json["compare"] = report.json;
    SPRUN_TRY(write_json(args.json, json));
  }
  return report.status;
}

}  // namespace

Action setup_run(CLI::App& app) {
  auto args = std::make_shared<RunArgs>();
  add_model_options(app, args->model);
  add_input_options(app, args->input);
  app.add_option("-o,--output", args->output,
                 "Save the outputs: FILE.npz, or a folder for NAME.npy files");
  app.add_option("--compare", args->compare,
                 "Expected outputs: FILE.npz, a folder of .npy files or a test_data_set folder; "
                 "exit code 5 if they differ");
  app.add_option("--rtol", args->tolerance.rtol, "Relative tolerance, X or OUTPUT=X; default 1e-3")
      ->delimiter(',');
  app.add_option("--atol", args->tolerance.atol, "Absolute tolerance, X or OUTPUT=X; default 1e-5")
      ->delimiter(',');
  app.add_option("--metric", args->tolerance.metric,
                 "max: |difference| <= atol + rtol |expected|; scaled: the same with the largest "
                 "|expected|; cosine: at "
                 "least --min-cosine; top1: same largest element per row");
  app.add_option("--min-cosine", args->tolerance.min_cosine, "Threshold of --metric cosine");
  app.add_option("--threads", args->threads, "Threads; 0: every core this process may use")
      ->check(CLI::Range(0, 1024));
  app.add_option("--warmup", args->warmup, "Runs before measuring; the first run counts as one")
      ->check(CLI::NonNegativeNumber);
  auto* iterations = app.add_option("--iterations", args->iterations,
                                    "Measured runs; default 10, at most 3 seconds");
  iterations->check(CLI::PositiveNumber);
  app.add_option("--time", args->seconds, "Measure for this many seconds instead")
      ->check(CLI::PositiveNumber)
      ->excludes(iterations);
  app.add_option("--deadline", args->deadline_ms,
                 "Give up a run after this many milliseconds (exit code 7)")
      ->check(CLI::PositiveNumber);
  app.add_option("--json", args->json,
                 "Write the figures as JSON to FILE, or - for standard output");
  app.add_flag("--loop", args->loop)->group("");  // hidden: for bench/e2e
  return [args] { return run(*args); };
}

}  // namespace sprun::tools
