// What a Model holds: the optimised graph, packed weights, and the plans made so far.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "graph/onnx/onnx_reader.h"
#include "graph/passes/pass.h"
#include "runtime/base/packed_cache.h"
#include "runtime/plan/plan.h"
#include "sprun/model.h"
#include "sprun/session.h"

namespace sprun {

struct Model::Impl {
  ModelOptions options;
  graph::OnnxModel onnx;  // onnx.graph is the graph after the load-stage passes; never changed afterwards
  std::vector<TensorSpec> inputs, outputs;
  std::vector<graph::PassRecord> load_passes;
  std::vector<std::string> load_notes;
  int64_t constant_bytes = 0;

  // The plan for these input types and shapes; built on first use, then shared. Thread-safe; several threads that
  // need different new plans wait for each other.
  Result<std::shared_ptr<const Plan>> plan_for(std::span<const ConstTensorView> inputs, ThreadPool& pool) const;

  const graph::Graph& onnx_graph() const { return *onnx.graph; }
  PlanOptions plan_options(const ThreadPool& pool) const;
  std::vector<FfnDensity> ffn_density() const;  // Session::ffn_density

  mutable PackedCache packed;
  mutable std::mutex plans_mutex;
  mutable std::list<std::pair<std::string, std::shared_ptr<const Plan>>> plans;  // most recently used first
};

}  // namespace sprun
