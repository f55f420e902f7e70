#include "tools/compress/scan.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "tools/compress/gram_product.h"
#include "tools/compress/layer_times.h"
#include "tools/compress/linear_layers.h"
#include "tools/compress/prune.h"

namespace sprun::compress {

using graph::Graph;
using graph::ValueId;

namespace {

std::vector<PruneSpec> levels_of(const ScanOptions& options) {
  std::vector<PruneSpec> specs;
  if (options.pattern.is_n_of_m()) {
    const double kept =
        static_cast<double>(options.pattern.kept) / static_cast<double>(options.pattern.of);
    return {{options.pattern, 1 - kept, options.method}};
  }
  for (const double sparsity : kScanSparsities)
    specs.push_back({options.pattern, sparsity, options.method});
  return specs;
}

class Scan {
 public:
  Scan(const Graph& graph, const Calibration& calibration, const Batch& sample, ThreadPool& pool,
       const ScanOptions& options)
      : graph_(graph), calibration_(calibration), sample_(sample), pool_(pool), options_(options) {}

  Result<std::vector<ScanLayer>> run() {
    SPRUN_ASSIGN(const std::vector<LinearLayer> all, find_linear_layers(graph_));
    for (const LinearLayer& layer : all) {
      const bool skipped = std::any_of(options_.skip.begin(), options_.skip.end(),
                                       [&](const std::string& p) { return is_named(layer, p); });
      if (layer.obstacle.empty() && !layer.is_head && !skipped) layers_.push_back(layer);
    }
    SPRUN_TRY(collect_samples());
    SPRUN_TRY(learn());
    return std::move(results_);
  }

 private:
  // What each layer reads for the one sample.
  Status collect_samples() {
    return visit_layers(graph_, sample_, pool_, options_.stop,
                        [&](const LinearLayer& layer, const Tensor& input) {
                          inputs_[layer.x] = input;
                          return Status();
                        });
  }

  Status learn() {
    SPRUN_ASSIGN(GramProduct gram, GramProduct::create(pool_));
    std::vector<ValueId> values;
    for (const LinearLayer& layer : layers_) values.push_back(layer.x);
    ActivationWalk walk(graph_, calibration_, pool_, values, options_.stop);
    InputStatistics statistics;
    for (size_t i = 0; i < layers_.size(); ++i) {
      const LinearLayer& layer = layers_[i];
      const bool same_input = i > 0 && layers_[i - 1].x == layer.x;
      if (!same_input) statistics = InputStatistics(calibration_.empty() ? 0 : layer.k);
      SPRUN_TRY(walk.next([&](size_t b, const Tensor& x) {
        if (same_input) return Status();
        return gram.add(x, unmasked_rows(graph_, calibration_.batches[b], x.shape()), statistics);
      }));
      options_.progress(static_cast<double>(i) / static_cast<double>(layers_.size()), layer.name);
      SPRUN_TRY(scan(layer, statistics));
    }
    return {};
  }

  Status scan(const LinearLayer& layer, const InputStatistics& statistics) {
    const Matrix original = read_weight(graph_, layer);
    ScanLayer result{layer.name, layer.n, layer.k, 0, {}};
    SPRUN_ASSIGN(result.dense_ms, time(layer, graph_));
    for (const PruneSpec& spec : levels_of(options_)) {
      if (options_.stop.stop_requested()) return {Code::kCancelled, "interrupted"};
      Matrix w = original;
      PruneOutcome outcome;
      const PruneProblem problem{spec, &statistics, options_.damping, {}, &pool_};
      SPRUN_TRY(find_prune_method(spec.method)->run(problem, w, outcome).with_context(layer.name));
      ScanLevel level{spec.sparsity, {}, 0};
      if (statistics.rows() > 0)
        level.error = output_error(statistics, original, w, pool_).relative;
      Graph pruned = graph_;
      LinearLayer changed = layer;
      SPRUN_TRY(write_weight(pruned, changed, w));
      SPRUN_ASSIGN(level.ms, time(layer, pruned));
      result.levels.push_back(level);
    }
    results_.push_back(std::move(result));
    return {};
  }

  Result<double> time(const LinearLayer& layer, const Graph& graph) {
    return time_layer(graph, layer.x, graph.node(layer.node).outputs[0], inputs_.at(layer.x),
                      sample_, pool_, options_.stop);
  }

  const Graph& graph_;
  const Calibration& calibration_;
  const Batch& sample_;
  ThreadPool& pool_;
  const ScanOptions& options_;
  std::vector<LinearLayer> layers_;
  std::map<ValueId, Tensor> inputs_;
  std::vector<ScanLayer> results_;
};

double squared_error(const ScanLayer& layer, int level) {
  const double error = level < 0 ? 0 : layer.levels[static_cast<size_t>(level)].error.value_or(0);
  return error * error;
}
double ms_at(const ScanLayer& layer, int level) {
  return level < 0 ? layer.dense_ms : layer.levels[static_cast<size_t>(level)].ms;
}

}  // namespace

Status parse_scan(const std::string& text, ScanOptions& options) {
  const size_t at = text.rfind('@');
  SPRUN_ASSIGN(options.pattern, parse_pattern(text.substr(0, at)));
  if (at != std::string::npos) options.method = text.substr(at + 1);
  if (find_prune_method(options.method) == nullptr) {
    return {Code::kUsage,
            fmt::format("'{}': unknown method; there are {}", text, prune_method_names())};
  }
  return {};
}

Result<std::vector<ScanLayer>> scan_layers(const Graph& graph, const Calibration& calibration,
                                           const Batch& sample, ThreadPool& pool,
                                           const ScanOptions& options) {
  const bool needs_data = find_prune_method(options.method)->needs == PruneMethod::Needs::kInputs;
  if (needs_data && calibration.empty())
    return Status(Code::kUsage, options.method + " needs --calibration");
  return Scan(graph, calibration, sample, pool, options).run();
}

Result<Recipe> recipe_for_speedup(const std::vector<ScanLayer>& layers, double model_ms,
                                  double speedup, const ScanOptions& options) {
  std::vector<int> chosen(layers.size(), -1);
  double left = model_ms;
  while (left > model_ms / speedup) {
    size_t best = layers.size();
    int best_level = -1;
    double best_rate = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      for (int level = chosen[i] + 1; level < static_cast<int>(layers[i].levels.size()); ++level) {
        const double saved = ms_at(layers[i], chosen[i]) - ms_at(layers[i], level);
        const double added = squared_error(layers[i], level) - squared_error(layers[i], chosen[i]);
        const double rate = saved / std::max(added, 1e-12);
        if (saved > 0 && rate > best_rate) best = i, best_level = level, best_rate = rate;
      }
    }
    if (best == layers.size()) {
      return Status(
          Code::kBadInput,
          fmt::format(
              "a speed-up of {} is out of reach: the fastest level of every layer gives {:.2f}",
              speedup, model_ms / left));
    }
    left -= ms_at(layers[best], chosen[best]) - ms_at(layers[best], best_level);
    chosen[best] = best_level;
  }
  Recipe recipe;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (chosen[i] < 0) continue;
    const PruneSpec spec{options.pattern, layers[i].levels[static_cast<size_t>(chosen[i])].sparsity,
                         options.method};
    recipe.items.push_back({"prune", layers[i].name, spec.text()});
  }
  return recipe;
}

Rows scan_rows(const std::vector<ScanLayer>& layers) {
  Rows rows = {{"layer", "size", "dense ms"}};
  if (layers.empty()) return rows;
  for (const ScanLevel& level : layers[0].levels) {
    rows[0].push_back(fmt::format("error {:.0f}%", 100 * level.sparsity));
    rows[0].push_back("ms");
  }
  for (const ScanLayer& layer : layers) {
    std::vector<std::string> row = {layer.name, fmt::format("{}x{}", layer.outputs, layer.inputs),
                                    fmt::format("{:.4f}", layer.dense_ms)};
    for (const ScanLevel& level : layer.levels) {
      row.push_back(level.error ? fmt::format("{:.4f}", *level.error) : "-");
      row.push_back(fmt::format("{:.4f}", level.ms));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

nlohmann::ordered_json scan_json(const std::vector<ScanLayer>& layers) {
  nlohmann::ordered_json json = nlohmann::ordered_json::array();
  for (const ScanLayer& layer : layers) {
    nlohmann::ordered_json entry = {{"name", layer.name},
                                    {"outputs", layer.outputs},
                                    {"inputs", layer.inputs},
                                    {"dense_ms", layer.dense_ms},
                                    {"levels", nlohmann::ordered_json::array()}};
    for (const ScanLevel& level : layer.levels) {
      entry["levels"].push_back(
          {{"sparsity", level.sparsity},
           {"relative_error",
            level.error ? nlohmann::ordered_json(*level.error) : nlohmann::ordered_json()},
           {"ms", level.ms}});
    }
    json.push_back(std::move(entry));
  }
  return json;
}

}  // namespace sprun::compress
