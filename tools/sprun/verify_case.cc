#include "tools/sprun/verify_case.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <memory>

#include <fmt/format.h>

#include "graph/onnx/onnx_writer.h"
#include "runtime/session/model_impl.h"
#include "sprun/session.h"
#include "tools/sprun/console.h"
#include "tools/sprun/io/json_cases.h"
#include "tools/sprun/io/tensor_files.h"

namespace sprun::tools {
namespace {

namespace fs = std::filesystem;

// Expected values of .jsonc files are printed with few digits.
constexpr double kJsonAtol = 1e-4;

// Messages of honest refusals say so.
CaseResult failed(const Status& status) {
  const auto says = [&](std::string_view words) {
    return status.message().find(words) != std::string::npos;
  };
  const bool refused =
      status.code() == Code::kNotSupported || says("unsupported") || says("not supported");
  return {refused ? Verdict::kUnsupported : Verdict::kError, status.message()};
}

std::vector<std::string> data_sets_of(const std::string& dir) {
  std::vector<std::string> sets;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    if (it->path().filename().string().starts_with("test_data_set_")) {
      sets.push_back(it->path().string());
    }
  }
  std::sort(sets.begin(), sets.end());
  return sets;
}

bool is_random(const graph::Graph& graph) {
  static constexpr std::array<std::string_view, 6> kRandomOps = {
      "Bernoulli",        "Multinomial",   "RandomNormal",
      "RandomNormalLike", "RandomUniform", "RandomUniformLike"};
  for (graph::NodeId n = 0; n < graph.num_nodes(); ++n) {
    const graph::Node& node = graph.node(n);
    if (!node.dead && std::any_of(kRandomOps.begin(), kRandomOps.end(),
                                  [&](std::string_view op) { return node.is(op); })) {
      return true;
    }
  }
  return false;
}

// Runs once and compares. `atol` raises the absolute tolerance.
CaseResult run_and_compare(const std::shared_ptr<const Model>& model,
                           const std::vector<NamedTensor>& inputs,
                           const std::vector<NamedTensor>& expected, const CaseOptions& options,
                           double atol) {
  auto session = Session::create(model, {.num_threads = options.threads});
  if (!session.ok()) return failed(session.status());
  auto outputs = session->run(inputs, {.stop = stop_token(), .deadline = {}});
  if (!outputs.ok()) return failed(outputs.status());
  const bool random = is_random(*model->impl().onnx.graph);
  for (const NamedTensor& want : expected) {
    const auto got = std::find_if(outputs->begin(), outputs->end(),
                                  [&](const auto& t) { return t.name == want.name; });
    if (got == outputs->end()) return {Verdict::kError, "no output named " + want.name};
    const bool same_type =
        got->tensor.dtype() == want.tensor.dtype() && got->tensor.shape() == want.tensor.shape();
    if (random && same_type) continue;
    Tolerance tolerance = options.tolerances.for_output(want.name);
    tolerance.atol = std::max(tolerance.atol, atol);
    const Comparison c =
        compare_tensors(want.name, got->tensor.view(), want.tensor.view(), tolerance);
    if (!c.equal) return {Verdict::kFail, fmt::format("output '{}': {}", c.name, c.detail)};
  }
  return {Verdict::kPass, ""};
}

CaseResult run_folder(const std::string& path, const CaseOptions& options) {
  auto model = Model::load(path + "/model.onnx", options.model);
  if (!model.ok()) return failed(model.status());
  const std::vector<std::string> sets = data_sets_of(path);
  if (sets.empty()) return {Verdict::kError, "no test_data_set_* folder"};
  for (const std::string& set : sets) {
    auto inputs = read_tensors(set, TensorRole::kInput, (*model)->inputs());
    if (!inputs.ok()) return failed(inputs.status());
    auto expected = read_tensors(set, TensorRole::kOutput, (*model)->outputs());
    if (!expected.ok()) return failed(expected.status());
    CaseResult result = run_and_compare(*model, *inputs, *expected, options, 0);
    if (result.verdict == Verdict::kPass) continue;
    result.detail = fs::path(set).filename().string() + ": " + result.detail;
    return result;
  }
  return {Verdict::kPass, ""};
}

// A file that is gone when the object is.
class TemporaryFile {
 public:
  TemporaryFile() {
    std::error_code error;
    path_ = (fs::temp_directory_path(error) / "sprun_case_XXXXXX").string();
    const int fd = mkstemp(path_.data());
    if (fd >= 0) close(fd);
  }
  ~TemporaryFile() { unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

CaseResult run_json(const CaseRef& ref, const CaseOptions& options) {
  auto cases = read_json_cases(ref.path);
  if (!cases.ok()) return failed(cases.status());
  const JsonCase& one = (*cases)[static_cast<size_t>(ref.json_index)];
  if (!one.problem.ok()) return failed(one.problem);
  const TemporaryFile file;
  if (const Status written = graph::write_onnx(*one.graph, file.path()); !written.ok()) {
    return failed(written);
  }
  auto model = Model::load(file.path(), options.model);
  if (!model.ok()) return failed(model.status());
  return run_and_compare(*model, one.inputs, one.outputs, options, kJsonAtol);
}

Status add_json_cases(const std::string& path, std::vector<CaseRef>& out) {
  SPRUN_ASSIGN(const std::vector<JsonCase> cases, read_json_cases(path));
  for (const JsonCase& one : cases) {
    const auto index = static_cast<int>(&one - cases.data());
    out.push_back({path, index, fs::path(path).filename().string() + ": " + one.name});
  }
  return {};
}

}  // namespace

std::string_view verdict_name(Verdict verdict) {
  static constexpr std::array<std::string_view, kNumVerdicts> kNames = {
      "pass", "fail", "unsupported", "error", "crash"};
  return kNames[static_cast<size_t>(verdict)];
}

Result<std::vector<CaseRef>> find_cases(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return Status(Code::kBadInput, path + ": no such file or folder");
  std::vector<std::string> folders, json_files;
  const auto add = [&](const fs::path& at) {
    std::error_code ignored;
    if (fs::exists(at / "model.onnx", ignored)) folders.push_back(at.string());
    else if (at.extension() == ".jsonc") json_files.push_back(at.string());
  };
  add(path);
  const auto skip = fs::directory_options::skip_permission_denied;
  for (fs::recursive_directory_iterator it(path, skip, error), end; !error && it != end;
       it.increment(error)) {
    add(it->path());
  }
  std::sort(folders.begin(), folders.end());
  std::sort(json_files.begin(), json_files.end());
  std::vector<CaseRef> cases;
  for (const std::string& folder : folders) {
    cases.push_back({folder, -1, fs::path(folder).filename().string()});
  }
  for (const std::string& file : json_files) SPRUN_TRY(add_json_cases(file, cases));
  return cases;
}

CaseResult run_case(const CaseRef& ref, const CaseOptions& options) {
  return ref.json_index < 0 ? run_folder(ref.path, options) : run_json(ref, options);
}

CaseResult run_case_isolated(const CaseRef& ref, const CaseOptions& options) {
  int ends[2];
  if (pipe(ends) != 0) return {Verdict::kError, "cannot make a pipe"};
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return {Verdict::kError, "cannot start a process"};
  if (child == 0) {
    close(ends[0]);
    const CaseResult result = run_case(ref, options);
    const std::string text =
        static_cast<char>('0' + static_cast<int>(result.verdict)) + result.detail;
    const bool sent = write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  std::string text;
  std::array<char, 4096> buffer;
  for (ssize_t n = 0; (n = read(ends[0], buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFSIGNALED(status)) return {Verdict::kCrash, fmt::format("signal {}", WTERMSIG(status))};
  if (WEXITSTATUS(status) != 0 || text.empty()) {
    return {Verdict::kCrash, fmt::format("exit code {}", WEXITSTATUS(status))};
  }
  return {static_cast<Verdict>(text.front() - '0'), text.substr(1)};
}

}  // namespace sprun::tools
