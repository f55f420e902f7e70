#include "tools/compress/layer_times.h"

#include <utility>

#include "tools/compress/graph_runner.h"

namespace sprun::compress {

using graph::Graph;
using graph::ValueId;

Result<double> time_layer(const Graph& graph, ValueId x, ValueId y, const Tensor& input, ThreadPool& pool,
                          std::stop_token stop) {
  const ValueId from[] = {x}, to[] = {y};
  SPRUN_ASSIGN(Graph part, extract_part(graph, from, to));
  SPRUN_ASSIGN(GraphRunner runner, GraphRunner::create(std::move(part), pool, SparseMode::kAuto));
  const ConstTensorView view = input.view();
  return runner.time_ms({&view, 1}, std::move(stop));
}

Status visit_layers(const Graph& graph, const Batch& sample, ThreadPool& pool, std::stop_token stop,
                    const LayerVisitor& fn) {
  SPRUN_ASSIGN(const std::vector<LinearLayer> layers, find_linear_layers(graph));
  Calibration one;
  one.batches.push_back(sample);
  std::vector<ValueId> inputs;
  for (const LinearLayer& layer : layers) inputs.push_back(layer.x);
  ActivationWalk walk(graph, one, pool, std::move(inputs), std::move(stop));
  for (const LinearLayer& layer : layers) {
    SPRUN_TRY(walk.next([&](size_t, const Tensor& input) { return layer.obstacle.empty() ? fn(layer, input) : Status(); }));
  }
  return {};
}

Result<double> time_changed_layers(const Graph& before, const Graph& after, const Batch& sample, ThreadPool& pool,
                                   std::stop_token stop, Report& report) {
  double saved = 0;
  SPRUN_TRY(visit_layers(before, sample, pool, stop, [&](const LinearLayer& layer, const Tensor& input) -> Status {
    LayerReport* entry = report.find(layer.name);
    const ValueId y = before.node(layer.node).outputs[0];
    // Both graphs number values alike as long as the layer's ends are still there.
    const bool kept = y < after.num_values() && after.value(y).producer != graph::kNoNode &&
                      after.value(y).name == before.value(y).name && after.value(layer.x).name == before.value(layer.x).name;
    if (entry == nullptr || entry->action.empty() || !kept) return {};
    SPRUN_ASSIGN(entry->ms_before, time_layer(before, layer.x, y, input, pool, stop));
    SPRUN_ASSIGN(entry->ms_after, time_layer(after, layer.x, y, input, pool, stop));
    saved += *entry->ms_before - *entry->ms_after;
    return {};
  }));
  return saved;
}

}  // namespace sprun::compress
