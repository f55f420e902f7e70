#include "tools/compress/layer_times.h"

#include <utility>

#include "tools/compress/graph_runner.h"
#include "tools/compress/kv_states.h"

namespace sprun::compress {

using graph::Graph;
using graph::ValueId;

namespace {
int64_t constant_bytes(const Graph& graph) {
  int64_t bytes = 0;
  for (ValueId v = 0; v < graph.num_values(); ++v) {
    if (const Tensor* t = graph.constant(v)) bytes += t->size_bytes();
  }
  return bytes;
}
}  // namespace

Result<double> time_layer(const Graph& graph, ValueId x, ValueId y, const Tensor& input,
                          const Batch& sample, ThreadPool& pool, std::stop_token stop) {
  std::vector<ValueId> from = {x};
  std::vector<ConstTensorView> views = {input.view()};
  for (size_t i = 0; i < sample.inputs.size(); ++i) {
    if (graph.inputs()[i] == x) continue;
    from.push_back(graph.inputs()[i]);
    views.push_back(sample.inputs[i].view());
  }
  const ValueId to[] = {y};
  SPRUN_ASSIGN(Graph part, extract_part(graph, from, to));
  if (part.value(part.inputs()[0]).users.empty())
    return Status(Code::kBadModel, "the layer does not read its input any more");
  const int64_t own = constant_bytes(part);
  SPRUN_ASSIGN(GraphRunner runner, GraphRunner::create(std::move(part), pool, SparseMode::kAuto));
  return runner.time_ms(views, std::move(stop), constant_bytes(graph) - own);
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
    SPRUN_TRY(walk.next([&](size_t, const Tensor& input) {
      return layer.obstacle.empty() ? fn(layer, input) : Status();
    }));
  }
  return {};
}

namespace {

// Both graphs number values alike as long as the layer's ends are still there.
bool has_same_ends(const Graph& before, const Graph& after, ValueId x, ValueId y) {
  return y < after.num_values() && after.value(y).producer != graph::kNoNode &&
         after.value(y).name == before.value(y).name && after.value(x).name == before.value(x).name;
}

// The layer after the change. Where it reads fewer inputs than before, zeros stand for them: times
// do not depend on values.
Result<double> time_after(const Graph& after, ValueId x, ValueId y, const LayerReport& entry,
                          const Tensor& input, const Batch& sample, ThreadPool& pool,
                          const std::stop_token& stop) {
  if (entry.after.inputs == entry.before.inputs)
    return time_layer(after, x, y, input, sample, pool, stop);
  Shape shape = input.shape();
  shape[shape.rank() - 1] = entry.after.inputs;
  SPRUN_ASSIGN(const Tensor narrow, Tensor::zeros(input.dtype(), shape));
  return time_layer(after, x, y, narrow, sample, pool, stop);
}

// A layer that cannot be timed alone has no time; the rest goes on.
Result<std::optional<double>> unless_cancelled(const Result<double>& ms) {
  if (ms.ok()) return std::optional(*ms);
  if (ms.status().code() == Code::kCancelled) return ms.status();
  return std::optional<double>();
}

// All linear layers, each alone; none if one cannot be timed.
Result<std::optional<double>> time_all_layers(const Graph& graph, const Batch& sample,
                                              ThreadPool& pool, const std::stop_token& stop) {
  std::optional<double> total = 0;
  SPRUN_TRY(visit_layers(
      graph, sample, pool, stop, [&](const LinearLayer& layer, const Tensor& input) -> Status {
        const ValueId y = graph.node(layer.node).outputs[0];
        SPRUN_ASSIGN(const std::optional<double> ms,
                     unless_cancelled(time_layer(graph, layer.x, y, input, sample, pool, stop)));
        total = total && ms ? std::optional(*total + *ms) : std::nullopt;
        return {};
      }));
  return total;
}

}  // namespace

Result<std::optional<double>> time_changed_layers(const Graph& before, const Graph& after,
                                                  const Batch& sample, ThreadPool& pool,
                                                  std::stop_token stop, Report& report) {
  SPRUN_ASSIGN(const Batch sample_after, fit_batch(sample, input_names(before), after));
  double saved = 0;
  bool complete = true;
  SPRUN_TRY(visit_layers(
      before, sample, pool, stop, [&](const LinearLayer& layer, const Tensor& input) -> Status {
        LayerReport* entry = report.find(layer.name);
        if (entry == nullptr || entry->action.empty()) return {};
        const ValueId y = before.node(layer.node).outputs[0];
        SPRUN_ASSIGN(entry->ms_before,
                     unless_cancelled(time_layer(before, layer.x, y, input, sample, pool, stop)));
        const bool removed = entry->after.parameters() == 0;
        if (!removed && has_same_ends(before, after, layer.x, y)) {
          SPRUN_ASSIGN(entry->ms_after, unless_cancelled(time_after(after, layer.x, y, *entry, input,
                                                                    sample_after, pool, stop)));
        }
        complete = complete && entry->ms_before && (removed || entry->ms_after);
        saved += entry->ms_before.value_or(0) - entry->ms_after.value_or(0);
        return {};
      }));
  if (complete) return std::optional(saved);
  // Layers were rebuilt, and there are new ones, such as shortcuts: the difference of all of them.
  SPRUN_ASSIGN(const auto all_before, time_all_layers(before, sample, pool, stop));
  SPRUN_ASSIGN(const auto all_after, time_all_layers(after, sample_after, pool, stop));
  return all_before && all_after ? std::optional(*all_before - *all_after) : std::nullopt;
}

}  // namespace sprun::compress
