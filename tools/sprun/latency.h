// Latency of two models on the same inputs, measured in turns.
#pragma once

#include <memory>
#include <vector>

#include "sprun/model.h"
#include "sprun/session.h"
#include "sprun/status.h"
#include "tools/compress/report.h"

namespace sprun::tools {

// At least 5 runs of each and at most 200, for about `seconds` in total.
Result<compress::LatencyReport> compare_latency(const std::shared_ptr<const Model>& before,
                                                const std::shared_ptr<const Model>& after,
                                                const std::vector<NamedTensor>& inputs,
                                                int num_threads, double seconds);

}  // namespace sprun::tools
