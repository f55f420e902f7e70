#include "tools/compress/kv_states.h"

#include <algorithm>
#include <utility>

#include "runtime/generate/decoder_io.h"

namespace sprun::compress {

using graph::Graph;
using graph::ValueId;

namespace {

// The past with the sizes that are declared now.
Result<Tensor> fit_past(const Tensor& t, const graph::Value& input) {
  Shape shape = t.shape();
  const auto& declared = input.declared;
  if (!declared || static_cast<int>(declared->size()) != shape.rank()) return t;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const int64_t size = (*declared)[static_cast<size_t>(axis)].value;
    if (size > 0) shape[axis] = size;
  }
  if (shape == t.shape()) return t;
  if (t.num_elements() == 0) return Tensor::zeros(t.dtype(), shape);
  return Status(Code::kBadInput, "input '" + input.name + "' changes its shape from " + t.shape().to_string() + " to " +
                                     shape.to_string() + ", so that calibration data must come without it");
}

Status fit_batches(const std::vector<std::string>& names, const Graph& now, std::vector<Batch>& batches) {
  for (Batch& batch : batches) {
    SPRUN_ASSIGN(batch, fit_batch(batch, names, now));
  }
  return {};
}

}  // namespace

std::vector<KvState> find_kv_states(const Graph& graph) {
  std::vector<TensorSpec> outputs;
  for (ValueId v : graph.outputs()) outputs.push_back({graph.value(v).name, DType::kUndefined, false, {}});
  std::vector<KvState> states;
  for (ValueId past : graph.inputs()) {
    const int output = state_output(graph.value(past).name, outputs);
    if (output >= 0) states.push_back({past, graph.outputs()[static_cast<size_t>(output)]});
  }
  return states;
}

std::vector<std::string> input_names(const Graph& graph) {
  std::vector<std::string> names;
  for (ValueId v : graph.inputs()) names.push_back(graph.value(v).name);
  return names;
}

Result<Batch> fit_batch(const Batch& batch, const std::vector<std::string>& names, const Graph& now) {
  const std::vector<KvState> states = find_kv_states(now);
  Batch fitted{{}, batch.samples};
  for (ValueId v : now.inputs()) {
    const graph::Value& input = now.value(v);
    const auto at = std::find(names.begin(), names.end(), input.name) - names.begin();
    if (static_cast<size_t>(at) >= batch.inputs.size())
      return Status(Code::kInternal, "no calibration data for the input '" + input.name + "'");
    fitted.inputs.push_back(batch.inputs[static_cast<size_t>(at)]);
    if (std::none_of(states.begin(), states.end(), [&](const KvState& s) { return s.past == v; })) continue;
    SPRUN_ASSIGN(fitted.inputs.back(), fit_past(fitted.inputs.back(), input));
  }
  return fitted;
}

Status fit_calibration(const std::vector<std::string>& names, const Graph& now, Calibration& calibration) {
  SPRUN_TRY(fit_batches(names, now, calibration.batches));
  return fit_batches(names, now, calibration.held_out);
}

}  // namespace sprun::compress
