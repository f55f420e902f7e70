// sprun verify: ONNX backend-test folders. A case is a folder with model.onnx and test_data_set_*.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "tools/sprun/command.h"
#include "tools/sprun/compare.h"
#include "tools/sprun/console.h"
#include "tools/sprun/engine.h"
#include "tools/sprun/io/tensor_files.h"

namespace sprun::tools {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

struct VerifyArgs {
  std::vector<std::string> dirs, disabled_passes;
  std::string filter, json, precision = "f32", isa;
  ToleranceArgs tolerance;
  int threads = 0;
  bool isolate = false, verbose = false;
};

enum class Verdict { kPass, kFail, kUnsupported, kError, kCrash };
constexpr std::array<std::string_view, 5> kVerdictNames = {"pass", "fail", "unsupported", "error",
                                                           "crash"};

struct CaseResult {
  std::string path;
  Verdict verdict = Verdict::kError;
  std::string detail;
};

// Folders below `root` that hold a case, sorted.
Result<std::vector<std::string>> find_cases(const std::string& root) {
  std::vector<std::string> cases;
  std::error_code error;
  if (!fs::is_directory(root, error)) return Status(Code::kBadInput, root + ": no such folder");
  const auto add = [&](const fs::path& dir) {
    std::error_code ignored;
    if (fs::exists(dir / "model.onnx", ignored)) cases.push_back(dir.string());
  };
  add(root);
  for (fs::recursive_directory_iterator
           it(root, fs::directory_options::skip_permission_denied, error),
       end;
       !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_directory(ignored)) add(it->path());
  }
  std::sort(cases.begin(), cases.end());
  return cases;
}

std::vector<std::string> data_sets_of(const std::string& dir) {
  std::vector<std::string> sets;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string().starts_with("test_data_set_"))
      sets.push_back(it->path().string());
  }
  std::sort(sets.begin(), sets.end());
  return sets;
}

// Messages of honest refusals say so.
Verdict verdict_of(const Status& status) {
  if (status.code() == Code::kNotSupported) return Verdict::kUnsupported;
  const auto says = [&](std::string_view words) {
    return status.message().find(words) != std::string::npos;
  };
  return says("unsupported") || says("not supported") ? Verdict::kUnsupported : Verdict::kError;
}

CaseResult failed(const std::string& path, const Status& status) {
  return {path, verdict_of(status), status.message()};
}

// One data set; nullopt-like: verdict kPass when it agrees.
CaseResult run_data_set(const std::string& path, const std::string& set,
                        const std::shared_ptr<const Model>& model, Session& session,
                        const Tolerances& tolerances) {
  auto inputs = read_tensors(set, TensorRole::kInput, model->inputs());
  if (!inputs.ok()) return failed(path, inputs.status());
  auto expected = read_tensors(set, TensorRole::kOutput, model->outputs());
  if (!expected.ok()) return failed(path, expected.status());
  auto outputs = session.run(*inputs, {.stop = stop_token(), .deadline = {}});
  if (!outputs.ok()) return failed(path, outputs.status());
  for (const NamedTensor& want : *expected) {
    const auto got = std::find_if(outputs->begin(), outputs->end(),
                                  [&](const auto& t) { return t.name == want.name; });
    if (got == outputs->end()) return {path, Verdict::kError, "no output named " + want.name};
    const Comparison c = compare_tensors(want.name, got->tensor.view(), want.tensor.view(),
                                         tolerances.for_output(want.name));
    if (!c.equal) {
      return {
          path, Verdict::kFail,
          fmt::format("{}: output '{}': {}", fs::path(set).filename().string(), c.name, c.detail)};
    }
  }
  return {path, Verdict::kPass, ""};
}

CaseResult run_case(const std::string& path, const VerifyArgs& args, const Tolerances& tolerances) {
  ModelOptions options;
  auto precision = parse_precision(args.precision);
  if (!precision.ok()) return failed(path, precision.status());
  options.precision = *precision;
  options.disabled_passes = args.disabled_passes;
  auto model = Model::load(path + "/model.onnx", options);
  if (!model.ok()) return failed(path, model.status());
  const std::vector<std::string> sets = data_sets_of(path);
  if (sets.empty()) return {path, Verdict::kError, "no test_data_set_* folder"};
  for (const std::string& set : sets) {
    auto session = Session::create(*model, {.num_threads = args.threads});
    if (!session.ok()) return failed(path, session.status());
    CaseResult result = run_data_set(path, set, *model, *session, tolerances);
    if (result.verdict != Verdict::kPass) return result;
  }
  return {path, Verdict::kPass, ""};
}

// Runs the case in a process of its own: a crash becomes a verdict.
CaseResult run_isolated(const std::string& path, const VerifyArgs& args,
                        const Tolerances& tolerances) {
  int ends[2];
  if (pipe(ends) != 0) return {path, Verdict::kError, "cannot make a pipe"};
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return {path, Verdict::kError, "cannot start a process"};
  if (child == 0) {
    close(ends[0]);
    const CaseResult result = run_case(path, args, tolerances);
    const std::string text =
        static_cast<char>('0' + static_cast<int>(result.verdict)) + result.detail;
    const bool sent = write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status))
    return {path, Verdict::kCrash, fmt::format("signal {}", WTERMSIG(status))};
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || text.empty()) {
    return {path, Verdict::kCrash, fmt::format("exit code {}", WEXITSTATUS(status))};
  }
  return {path, static_cast<Verdict>(text.front() - '0'), text.substr(1)};
}

Json json_of(const std::vector<CaseResult>& results, const std::map<Verdict, int64_t>& totals) {
  Json json = {{"totals", Json::object()}, {"cases", Json::array()}};
  json["totals"]["cases"] = results.size();
  for (size_t v = 0; v < kVerdictNames.size(); ++v) {
    const auto it = totals.find(static_cast<Verdict>(v));
    json["totals"][std::string(kVerdictNames[v])] = it == totals.end() ? 0 : it->second;
  }
  for (const CaseResult& r : results) {
    json["cases"].push_back({{"name", fs::path(r.path).filename().string()},
                             {"path", r.path},
                             {"verdict", kVerdictNames[static_cast<size_t>(r.verdict)]},
                             {"detail", r.detail}});
  }
  return json;
}

Status verify(const VerifyArgs& args) {
  SPRUN_ASSIGN(const Tolerances tolerances, Tolerances::create(args.tolerance));
  SPRUN_TRY(parse_precision(args.precision).status());
  SPRUN_TRY(limit_isa(args.isa));
  std::vector<std::string> cases;
  for (const std::string& dir : args.dirs) {
    SPRUN_ASSIGN(const std::vector<std::string> found, find_cases(dir));
    for (const std::string& path : found) {
      if (path.find(args.filter) != std::string::npos) cases.push_back(path);
    }
  }
  if (cases.empty()) return {Code::kBadInput, "no case found: no folder holds a model.onnx"};
  std::vector<CaseResult> results;
  std::map<Verdict, int64_t> totals;
  // A child of a process with threads may only do little; isolated runs have no progress line.
  const auto progress = args.isolate ? nullptr : std::make_unique<Progress>("verifying");
  for (const std::string& path : cases) {
    if (interrupted()) return {Code::kCancelled, "interrupted"};
    if (progress)
      progress->set_label(fmt::format("verifying {} of {}", results.size() + 1, cases.size()));
    results.push_back(args.isolate ? run_isolated(path, args, tolerances)
                                   : run_case(path, args, tolerances));
    const CaseResult& r = results.back();
    ++totals[r.verdict];
    const bool shown =
        args.verbose || (r.verdict != Verdict::kPass && r.verdict != Verdict::kUnsupported);
    if (shown && args.json != "-") {
      SPRUN_TRY(print(fmt::format("{:<11} {}{}{}\n", kVerdictNames[static_cast<size_t>(r.verdict)],
                                  r.path, r.detail.empty() ? "" : ": ", r.detail)));
    }
  }
  std::vector<std::string> counts;
  for (size_t v = 0; v < kVerdictNames.size(); ++v) {
    counts.push_back(fmt::format("{} {}", totals[static_cast<Verdict>(v)], kVerdictNames[v]));
  }
  if (args.json != "-")
    SPRUN_TRY(print(fmt::format("{} cases: {}\n", results.size(), fmt::join(counts, ", "))));
  if (!args.json.empty()) SPRUN_TRY(write_json(args.json, json_of(results, totals)));
  const int64_t wrong = totals[Verdict::kFail] + totals[Verdict::kError] + totals[Verdict::kCrash];
  return wrong == 0 ? Status()
                    : Status(Code::kMismatch,
                             fmt::format("{} of {} cases do not pass", wrong, results.size()));
}

}  // namespace

Action setup_verify(CLI::App& app) {
  auto args = std::make_shared<VerifyArgs>();
  args->tolerance.rtol = {"1e-3"};
  args->tolerance.atol = {"1e-7"};
  app.add_option("DIR", args->dirs, "Folders that are or hold cases (model.onnx, test_data_set_*)")
      ->required();
  app.add_option("--filter", args->filter, "Only cases whose path contains this text");
  app.add_option("--rtol", args->tolerance.rtol, "Relative tolerance; the default is ONNX's");
  app.add_option("--atol", args->tolerance.atol, "Absolute tolerance; the default is ONNX's");
  app.add_option("--threads", args->threads, "Threads; 0: every core this process may use")
      ->check(CLI::Range(0, 1024));
  app.add_option("--precision", args->precision, "Arithmetic of linear layers: f32, bf16, int8");
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
