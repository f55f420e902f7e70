#include "tools/compress/compress.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "graph/onnx/onnx_writer.h"
#include "tools/compress/compare_outputs.h"
#include "tools/compress/layer_times.h"
#include "tools/compress/step.h"

namespace sprun::compress {
namespace {

// Part of the progress that is left for the comparison of outputs.
constexpr double kComparePart = 0.05;

Status run_steps(std::span<const std::unique_ptr<Step>> steps, StepContext& context,
                 const CompressOptions& options) {
  const double part = (1 - kComparePart) / static_cast<double>(std::max<size_t>(steps.size(), 1));
  for (size_t i = 0; i < steps.size(); ++i) {
    if (options.stop.stop_requested()) return {Code::kCancelled, "interrupted"};
    context.progress = [&](double done, const std::string& what) {
      options.progress((static_cast<double>(i) + done) * part, what);
    };
    SPRUN_TRY(steps[i]->run(context));
  }
  return {};
}

}  // namespace

Result<Report> compress_model(graph::OnnxModel& model, const Recipe& recipe,
                              const Calibration& calibration, ThreadPool& pool,
                              const CompressOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  Report report;
  report.recipe = recipe_json(recipe);
  report.calibration = calibration.source;
  report.samples = calibration.samples();
  report.held_out_samples = calibration.held_out_samples();
  SPRUN_TRY(list_layers(*model.graph, report));
  SPRUN_ASSIGN(const auto steps, make_steps(recipe));
  for (const auto& step : steps) SPRUN_TRY(step->check(*model.graph, calibration));
  const graph::Graph original = *model.graph;
  Calibration fitted = calibration;
  StepContext context{*model.graph, fitted, pool, report, options.stop, options.damping};
  SPRUN_TRY(run_steps(steps, context, options));
  if (!calibration.held_out.empty()) {
    options.progress(1 - kComparePart, "comparing outputs");
    SPRUN_ASSIGN(report.outputs,
                 compare_outputs(original, *model.graph, calibration.held_out, pool, options.stop));
  }
  if (options.sample != nullptr) {
    options.progress(1 - kComparePart / 2, "timing layers");
    SPRUN_ASSIGN(*options.saved_ms, time_changed_layers(original, *model.graph, *options.sample,
                                                        pool, options.stop, report));
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

Status write_compressed(const graph::OnnxModel& model, const std::string& path,
                        const Report& report) {
  graph::WriteOptions options;
  options.ir_version = model.ir_version;
  options.opsets = model.opsets;
  options.producer_name = model.producer_name;
  options.producer_version = model.producer_version;
  options.metadata_props = model.metadata_props;
  std::erase_if(options.metadata_props,
                [](const auto& entry) { return entry.first.starts_with("sprun.compress."); });
  const auto add = [&](const char* key, std::string value) {
    options.metadata_props.emplace_back(std::string("sprun.compress.") + key, std::move(value));
  };
  add("source", report.model);
  add("recipe", report.recipe);
  if (!report.calibration.empty()) {
    add("calibration", report.calibration);
    add("samples", std::to_string(report.samples));
  }
  return graph::write_onnx(*model.graph, path, options);
}

}  // namespace sprun::compress
