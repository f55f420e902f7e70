// sprun bench: latency of every combination of sizes, threads and precisions. The combinations take
// turns in short batches, so that a disturbance of the machine hits all of them.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "tools/sprun/command.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"
#include "tools/sprun/stats.h"

namespace sprun::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kBatchMs = 50;
constexpr size_t kMaxConfigs = 500;

struct BenchArgs {
  ModelArgs model;
  InputArgs input;
  std::vector<std::string> precisions = {"f32"};
  std::string threads = "0", format = "table", json;
  int64_t warmup = 2, iterations = 0;
  double seconds = 2;
};

struct Config {
  std::string precision;
  int threads = 0;
  std::vector<std::pair<std::string, int64_t>> dims;
  // While measuring:
  std::shared_ptr<const Model> model;
  std::shared_ptr<std::vector<NamedTensor>> inputs;
  std::unique_ptr<Session> session;
  double load_ms = 0, first_ms = 0, spent_ms = 0;
  std::vector<double> latency_ms;
};

// Every combination of one size per symbol.
std::vector<std::vector<std::pair<std::string, int64_t>>> cross(const DimLists& lists) {
  std::vector<std::vector<std::pair<std::string, int64_t>>> all(1);
  for (const auto& [name, sizes] : lists) {
    decltype(all) next;
    for (const auto& chosen : all) {
      for (int64_t size : sizes) {
        next.push_back(chosen);
        next.back().emplace_back(name, size);
      }
    }
    all = std::move(next);
  }
  return all;
}

Result<std::vector<Config>> configs_of(const BenchArgs& args) {
  SPRUN_ASSIGN(const DimLists lists, parse_dim_lists(args.input.dims));
  SPRUN_ASSIGN(const std::vector<int64_t> threads, parse_int_list(args.threads));
  size_t count = args.precisions.size() * threads.size();
  for (const auto& [name, sizes] : lists) {
    count *= sizes.size();
    if (count > kMaxConfigs)
      return Status(Code::kUsage, fmt::format("more than {} combinations", kMaxConfigs));
  }
  const auto dims = cross(lists);
  std::vector<Config> configs;
  for (const std::string& precision : args.precisions) {
    for (const auto& chosen : dims) {
      for (int64_t t : threads) {
        Config config;
        config.precision = precision;
        config.threads = static_cast<int>(std::min<int64_t>(t, 1024));
        config.dims = chosen;
        configs.push_back(std::move(config));
      }
    }
  }
  return configs;
}

std::string label(const Config& c) {
  std::string text = c.precision;
  for (const auto& [name, size] : c.dims) text += fmt::format(" {}={}", name, size);
  return text + fmt::format(" {} threads", c.session ? c.session->num_threads() : c.threads);
}

// Loads each model once, makes inputs, runs the warm-up.
Status prepare(const BenchArgs& args, std::vector<Config>& configs) {
  std::map<std::string, Loaded> models;
  for (Config& c : configs) {
    auto [it, added] = models.try_emplace(c.precision);
    if (added) {
      ModelArgs model = args.model;
      model.precision = c.precision;
      SPRUN_ASSIGN(it->second, load_model(model));
    }
    c.model = it->second.model;
    c.load_ms = it->second.load_ms;
    const Progress progress("warming up " + label(c));
    SPRUN_ASSIGN(auto inputs,
                 make_inputs(*c.model, args.input, DimMap(c.dims.begin(), c.dims.end())));
    c.inputs = std::make_shared<std::vector<NamedTensor>>(std::move(inputs));
    SPRUN_ASSIGN(Session session, bound_session(c.model, *c.inputs, c.threads));
    c.session = std::make_unique<Session>(std::move(session));
    SPRUN_ASSIGN(c.first_ms, timed_run(*c.session));
    for (int64_t i = 1; i < args.warmup; ++i) SPRUN_TRY(timed_run(*c.session).status());
  }
  return {};
}

bool wants_more(const BenchArgs& args, const Config& c) {
  if (args.iterations > 0) return static_cast<int64_t>(c.latency_ms.size()) < args.iterations;
  return c.spent_ms < args.seconds * 1000;
}

Status measure(const BenchArgs& args, std::vector<Config>& configs) {
  Progress progress("measuring");
  for (bool more = true; more;) {
    more = false;
    for (Config& c : configs) {
      if (!wants_more(args, c)) continue;
      progress.set_label("measuring " + label(c));
      for (double batch = 0; batch < kBatchMs && wants_more(args, c);) {
        SPRUN_ASSIGN(const double ms, timed_run(*c.session));
        c.latency_ms.push_back(ms);
        c.spent_ms += ms;
        batch += ms;
      }
      more = more || wants_more(args, c);
    }
  }
  return {};
}

std::vector<std::vector<std::string>> result_rows(const std::vector<Config>& configs) {
  std::vector<std::vector<std::string>> rows(1);
  rows[0] = {"precision"};
  for (const auto& [name, size] : configs.front().dims) rows[0].push_back(name);
  for (const char* title :
       {"threads", "p50_ms", "p90_ms", "p99_ms", "min_ms", "mean_ms", "runs", "runs_per_s"}) {
    rows[0].emplace_back(title);
  }
  for (const Config& c : configs) {
    const LatencyStats s = latency_stats(c.latency_ms);
    std::vector<std::string> row = {c.precision};
    for (const auto& [name, size] : c.dims) row.push_back(std::to_string(size));
    row.push_back(std::to_string(c.session->num_threads()));
    for (double v : {s.p50, s.p90, s.p99, s.min, s.mean}) row.push_back(fmt::format("{:.3f}", v));
    row.push_back(std::to_string(c.latency_ms.size()));
    row.push_back(fmt::format("{:.1f}", s.mean > 0 ? 1000 / s.mean : 0));
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string as_csv(const std::vector<std::vector<std::string>>& rows) {
  std::string text;
  for (const auto& row : rows) text += fmt::format("{}\n", fmt::join(row, ","));
  return text;
}

std::string as_markdown(const std::vector<std::vector<std::string>>& rows) {
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    text += fmt::format("| {} |\n", fmt::join(rows[r], " | "));
    if (r != 0) continue;
    for (size_t i = 0; i < rows[0].size(); ++i) text += i == 0 ? "|---|" : "---:|";
    text += "\n";
  }
  return text;
}

Json as_json(const BenchArgs& args, const std::vector<Config>& configs) {
  Json json = {{"model", args.model.path}, {"isa", isa_in_use()}, {"results", Json::array()}};
  for (const Config& c : configs) {
    Json dims = Json::object();
    for (const auto& [name, size] : c.dims) dims[name] = size;
    json["results"].push_back({{"precision", c.precision},
                               {"dims", dims},
                               {"threads", c.session->num_threads()},
                               {"load_ms", round3(c.load_ms)},
                               {"first_ms", round3(c.first_ms)},
                               {"latency_ms", to_json(latency_stats(c.latency_ms))},
                               {"iterations", c.latency_ms.size()}});
  }
  return json;
}

Status bench(const BenchArgs& args) {
  SPRUN_ASSIGN(std::vector<Config> configs, configs_of(args));
  SPRUN_TRY(prepare(args, configs));
  const Status measured = measure(args, configs);
  if (!measured.ok() && measured.code() != Code::kCancelled)
    return measured;  // interrupted: print what there is
  const auto rows = result_rows(configs);
  if (args.format == "json") {
    SPRUN_TRY(write_json("-", as_json(args, configs)));
  } else if (args.json != "-") {
    SPRUN_TRY(print(args.format == "csv"  ? as_csv(rows)
                    : args.format == "md" ? as_markdown(rows)
                                          : format_table(rows)));
  }
  if (!args.json.empty()) SPRUN_TRY(write_json(args.json, as_json(args, configs)));
  return measured;
}

}  // namespace

Action setup_bench(CLI::App& app) {
  auto args = std::make_shared<BenchArgs>();
  add_model_options(app, args->model, false);
  add_input_options(app, args->input);
  app.get_option("--dim")->description(
      "Sizes of symbolic dimensions; lists and ranges are multiplied out: batch=1,seq=32,128 or "
      "seq=128..1024*2 or "
      "seq=32..128+32. Defaults as for run");
  app.add_option("--threads", args->threads,
                 "List or range of thread counts; 0: every core this process may use");
  app.add_option("--precision", args->precisions, "List of f32, bf16, int8")->delimiter(',');
  app.add_option("--warmup", args->warmup, "Runs per combination before measuring")
      ->check(CLI::PositiveNumber);
  auto* seconds = app.add_option("--time", args->seconds, "Seconds of measurement per combination");
  seconds->check(CLI::PositiveNumber);
  app.add_option("--iterations", args->iterations,
                 "Measured runs per combination instead of --time")
      ->check(CLI::PositiveNumber)
      ->excludes(seconds);
  app.add_option("--format", args->format, "table, csv, json or md")
      ->check(CLI::IsMember({"table", "csv", "json", "md"}));
  app.add_option("--json", args->json,
                 "Also write JSON to FILE; - writes only JSON, to standard output");
  return [args] { return bench(*args); };
}

}  // namespace sprun::tools
