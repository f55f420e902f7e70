// How much each layer loses and gains when it alone is pruned, and a recipe that follows from it.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "graph/ir/graph.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/calibration.h"
#include "tools/compress/pattern.h"
#include "tools/compress/recipe.h"
#include "tools/compress/report_rows.h"

namespace sprun::compress {

inline constexpr std::array kScanSparsities = {0.5, 0.75, 0.9};

struct ScanLevel {
  double sparsity = 0;
  std::optional<double>
      error;      // ||Y - Y'|| / ||Y|| of the layer's output; none without calibration data
  double ms = 0;  // measured alone, for one sample
};
struct ScanLayer {
  std::string name;
  int64_t outputs = 0, inputs = 0;
  double dense_ms = 0;
  std::vector<ScanLevel> levels;  // N:M patterns have one
};

struct ScanOptions {
  Pattern pattern;
  std::string method = "sparsegpt";
  std::vector<std::string> skip;
  double damping = 0.01;
  std::stop_token stop = {};
  std::function<void(double done, const std::string& what)> progress = [](double,
                                                                          const std::string&) {};
};

// "16x4@wanda", "2:4": pattern and method without a sparsity. kUsage.
Status parse_scan(const std::string& text, ScanOptions& options);

// Every layer that pruning would touch; each sees the inputs of the original model. sample: what
// times are measured with.
Result<std::vector<ScanLayer>> scan_layers(const graph::Graph& graph,
                                           const Calibration& calibration, const Batch& sample,
                                           ThreadPool& pool, const ScanOptions& options);

// The recipe that makes a model of model_ms about `speedup` times as fast: level by level, always
// the one that saves most time per squared error added. kBadInput if even the highest levels of all
// layers are too slow; the message says how far they go.
Result<Recipe> recipe_for_speedup(const std::vector<ScanLayer>& layers, double model_ms,
                                  double speedup, const ScanOptions& options);

Rows scan_rows(const std::vector<ScanLayer>& layers);
nlohmann::ordered_json scan_json(const std::vector<ScanLayer>& layers);

}  // namespace sprun::compress
