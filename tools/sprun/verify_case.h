// Cases that say what a model must answer, and running one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sprun/model.h"
#include "sprun/status.h"
#include "tools/sprun/compare.h"

namespace sprun::tools {

enum class Verdict { kPass, kFail, kUnsupported, kError, kCrash };
inline constexpr int kNumVerdicts = 5;
std::string_view verdict_name(Verdict verdict);

// A folder with model.onnx and test_data_set_*, or one case of a .jsonc file (io/json_cases.h).
struct CaseRef {
  std::string path;
  int json_index = -1;  // -1: a folder
  std::string name;
};

struct CaseResult {
  Verdict verdict = Verdict::kError;
  std::string detail;  // empty when it passes
};

// Cases at or below each path, sorted. kBadInput if a path does not exist or a .jsonc file cannot
// be read.
Result<std::vector<CaseRef>> find_cases(const std::string& path);

struct CaseOptions {
  ModelOptions model;
  int threads = 0;
  Tolerances tolerances;
};

// Models that draw random numbers are compared in type and shape only.
CaseResult run_case(const CaseRef& ref, const CaseOptions& options);
// The same in a process of its own: a crash becomes a verdict. The caller must not have threads.
CaseResult run_case_isolated(const CaseRef& ref, const CaseOptions& options);

}  // namespace sprun::tools
