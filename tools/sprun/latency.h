// Latency of two models on the same inputs, measured in turns.
#pragma once

#include <memory>
#include <vector>

#include "sprun/model.h"
#include "sprun/session.h"
#include "sprun/status.h"
#include "tools/compress/report.h"

namespace sprun::tools {

// A model and what it is run on.
struct TimedModel {
  std::shared_ptr<const Model> model;
  std::vector<NamedTensor> inputs;
};

// At least 5 runs of each and at most 200, for about `seconds` in total.
Result<compress::LatencyReport> compare_latency(const TimedModel& before, const TimedModel& after,
                                                int num_threads, double seconds);

}  // namespace sprun::tools
