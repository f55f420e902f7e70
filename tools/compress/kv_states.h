// Keys and values that a decoder hands from step to step, and calibration data for graphs of which such inputs have
// changed or gone.
#pragma once

#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/compress/calibration.h"

namespace sprun::compress {

// An input and the output that is this input at the next step.
struct KvState {
  graph::ValueId past = graph::kNoValue, present = graph::kNoValue;
};

// By their names, as generation pairs them; in the order of the inputs.
std::vector<KvState> find_kv_states(const graph::Graph& graph);

std::vector<std::string> input_names(const graph::Graph& graph);

// The batch, made for a graph with inputs `names`, for the graph as it is now: without inputs that are gone, and with the
// sizes that are declared now where a past is empty. kBadInput if a past is not empty and has other sizes.
Result<Batch> fit_batch(const Batch& batch, const std::vector<std::string>& names, const graph::Graph& now);
// All batches; tensors that do not change are shared.
Status fit_calibration(const std::vector<std::string>& names, const graph::Graph& now, Calibration& calibration);

}  // namespace sprun::compress
