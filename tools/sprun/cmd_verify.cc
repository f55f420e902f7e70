// sprun verify: cases with expected outputs. Prints what does not pass, and totals.
#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "tools/sprun/command.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"
#include "tools/sprun/verify_case.h"

namespace sprun::tools {
namespace {

using Json = nlohmann::ordered_json;

struct VerifyArgs {
  std::vector<std::string> paths, disabled_passes;
  std::string filter, json, precision = "f32", isa, sparse = "auto";
  ToleranceArgs tolerance;
  int threads = 0;
  bool isolate = false, verbose = false;
};

using Totals = std::array<int64_t, kNumVerdicts>;

Result<std::vector<CaseRef>> matching_cases(const VerifyArgs& args) {
  std::vector<CaseRef> cases;
  for (const std::string& path : args.paths) {
    SPRUN_ASSIGN(std::vector<CaseRef> found, find_cases(path));
    for (CaseRef& ref : found) {
      if ((ref.path + "/" + ref.name).find(args.filter) != std::string::npos) {
        cases.push_back(std::move(ref));
      }
    }
  }
  if (cases.empty()) {
    return Status(Code::kBadInput, "no case found: no folder with model.onnx, no .jsonc file");
  }
  return cases;
}

Json json_of(const std::vector<CaseRef>& cases, const std::vector<CaseResult>& results,
             const Totals& totals) {
  Json json = {{"totals", {{"cases", results.size()}}}, {"cases", Json::array()}};
  for (int v = 0; v < kNumVerdicts; ++v) {
    json["totals"][std::string(verdict_name(static_cast<Verdict>(v)))] =
        totals[static_cast<size_t>(v)];
  }
  for (size_t i = 0; i < results.size(); ++i) {
    json["cases"].push_back({{"name", cases[i].name},
                             {"path", cases[i].path},
                             {"verdict", verdict_name(results[i].verdict)},
                             {"detail", results[i].detail}});
  }
  return json;
}

Status report_case(const VerifyArgs& args, const CaseRef& ref, const CaseResult& result) {
  const bool bad = result.verdict != Verdict::kPass && result.verdict != Verdict::kUnsupported;
  if ((!bad && !args.verbose) || args.json == "-") return {};
  const std::string& where = ref.json_index < 0 ? ref.path : ref.name;
  return print(fmt::format("{:<11} {}{}{}\n", verdict_name(result.verdict), where,
                           result.detail.empty() ? "" : ": ", result.detail));
}

Status report_totals(const VerifyArgs& args, const std::vector<CaseRef>& cases,
                     const std::vector<CaseResult>& results) {
  Totals totals{};
  for (const CaseResult& r : results) ++totals[static_cast<size_t>(r.verdict)];
  std::vector<std::string> counts;
  for (int v = 0; v < kNumVerdicts; ++v) {
    counts.push_back(fmt::format("{} {}", totals[static_cast<size_t>(v)],
                                 verdict_name(static_cast<Verdict>(v))));
  }
  if (args.json != "-") {
    SPRUN_TRY(print(fmt::format("{} cases: {}\n", results.size(), fmt::join(counts, ", "))));
  }
  if (!args.json.empty()) SPRUN_TRY(write_json(args.json, json_of(cases, results, totals)));
  const auto of = [&](Verdict v) { return totals[static_cast<size_t>(v)]; };
  const int64_t wrong = of(Verdict::kFail) + of(Verdict::kError) + of(Verdict::kCrash);
  if (wrong == 0) return {};
  return {Code::kMismatch, fmt::format("{} of {} cases do not pass", wrong, results.size())};
}

Status verify(const VerifyArgs& args) {
  CaseOptions options;
  SPRUN_ASSIGN(options.tolerances, Tolerances::create(args.tolerance));
  SPRUN_ASSIGN(options.model.precision, parse_precision(args.precision));
  SPRUN_ASSIGN(options.model.sparse, parse_sparse_mode(args.sparse));
  SPRUN_TRY(limit_isa(args.isa));
  options.model.disabled_passes = args.disabled_passes;
  options.threads = args.threads;
  SPRUN_ASSIGN(const std::vector<CaseRef> cases, matching_cases(args));
  std::vector<CaseResult> results;
  // Isolated cases run in children; no thread of this process may be in the middle of something.
  const auto progress = args.isolate ? nullptr : std::make_unique<Progress>("verifying");
  for (const CaseRef& ref : cases) {
    if (interrupted()) return {Code::kCancelled, "interrupted"};
    if (progress) {
      progress->set_label(fmt::format("verifying {} of {}", results.size() + 1, cases.size()));
    }
    results.push_back(args.isolate ? run_case_isolated(ref, options) : run_case(ref, options));
    SPRUN_TRY(report_case(args, ref, results.back()));
  }
  return report_totals(args, cases, results);
}

}  // namespace

Action setup_verify(CLI::App& app) {
  auto args = std::make_shared<VerifyArgs>();
  args->tolerance.rtol = {"1e-3"};
  args->tolerance.atol = {"1e-7"};
  app.add_option("DIR", args->paths,
                 "Folders that are or hold cases: model.onnx with test_data_set_*, or .jsonc files")
      ->required();
  app.add_option("--filter", args->filter, "Only cases whose path or name contains this text");
  app.add_option("--rtol", args->tolerance.rtol, "Relative tolerance; the default is ONNX's");
  app.add_option("--atol", args->tolerance.atol, "Absolute tolerance; the default is ONNX's");
  app.add_option("--metric", args->tolerance.metric, "max, scaled, cosine or top1, as for run");
  app.add_option("--min-cosine", args->tolerance.min_cosine, "Threshold of --metric cosine");
  app.add_option("--threads", args->threads, "Threads; 0: every core this process may use")
      ->check(CLI::Range(0, 1024));
  app.add_option("--precision", args->precision, "Arithmetic of linear layers: f32, bf16, int8");
  app.add_option("--sparse", args->sparse, "Sparse kernels: auto, off, force");
  app.add_option("--isa", args->isa, "Highest instruction set to use");
  app.add_option("--disable-pass", args->disabled_passes, "Graph passes to leave out")
      ->delimiter(',');
  app.add_flag("--isolate", args->isolate, "One process per case: a crash counts as one case");
  app.add_flag("--verbose", args->verbose, "Print every case, not only those that do not pass");
  app.add_option("--json", args->json,
                 "Write every verdict as JSON to FILE, or - for standard output");
  return [args] { return verify(*args); };
}

}  // namespace sprun::tools
