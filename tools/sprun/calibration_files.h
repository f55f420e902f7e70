// Calibration data from what the user points at.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/graph.h"
#include "sprun/status.h"
#include "tools/compress/calibration.h"

namespace sprun::tools {

inline constexpr int64_t kDefaultSamples = 128;

struct CalibrationArgs {
  std::string source;  // empty: none
  int64_t samples = kDefaultSamples;
  std::vector<std::string> dims;  // sizes for "random"
  std::string tokenizer;          // for text
  int64_t length = 128;           // most tokens of a sample of text
  uint64_t seed = 0;
};

// source:
//   FILE.npz   one array per model input, samples along the first axis
//   DIR        NAME.npy files likewise, or .npz files, each with samples of one shape
//   FILE.txt   a sample a line, by the tokenizer; longer lines are cut
//   random     made up, for trying things out: says nothing about real data
// Inputs that are missing are made where that needs no data: empty ones (caches), masks (1),
// positions, token types (0). An eighth of the samples, 1 to 64 of the last ones, are kept for
// judging; of the others the first `samples` are used. kBadInput naming the array that does not
// fit.
Result<compress::Calibration> load_calibration(const graph::Graph& graph,
                                               const CalibrationArgs& args);

// The first sample of the held-out data.
Result<compress::Batch> first_sample(const graph::Graph& graph,
                                     const compress::Calibration& calibration);

}  // namespace sprun::tools
