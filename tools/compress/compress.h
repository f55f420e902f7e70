// The whole of it: a model, a recipe and calibration data in, a changed graph and a report out.
//
//   SPRUN_ASSIGN(graph::OnnxModel model, graph::read_onnx("model.onnx"));
//   SPRUN_ASSIGN(Report report, compress_model(model, recipe, calibration, pool, options));
//   SPRUN_TRY(write_compressed(model, "small.onnx", report));
#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <string>

#include "graph/onnx/onnx_reader.h"
#include "runtime/base/thread_pool.h"
#include "sprun/status.h"
#include "tools/compress/calibration.h"
#include "tools/compress/recipe.h"
#include "tools/compress/report.h"

namespace sprun::compress {

struct CompressOptions {
  double damping = 0.01;
  std::stop_token stop = {};
  // Where given, changed layers are timed alone on it, and saved_ms gets what they save together.
  const Batch* sample = nullptr;
  std::optional<double>* saved_ms = nullptr;
  // Part of the work that is done, 0 to 1, and what is being done.
  std::function<void(double done, const std::string& what)> progress = [](double,
                                                                          const std::string&) {};
};

// Checks the whole recipe, then runs its steps on model.graph and compares the outputs on held-out
// data. After an error the graph is in no useful state. The report lacks what only files tell:
// names, sizes, latency.
Result<Report> compress_model(graph::OnnxModel& model, const Recipe& recipe,
                              const Calibration& calibration, ThreadPool& pool,
                              const CompressOptions& options);

// Writes the model with its names, opsets and metadata, and what was done to it as metadata
// sprun.compress.*.
Status write_compressed(const graph::OnnxModel& model, const std::string& path,
                        const Report& report);

}  // namespace sprun::compress
