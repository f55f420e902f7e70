// Calibration samples from a text file and the model's tokenizer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sprun/model.h"
#include "sprun/session.h"
#include "sprun/status.h"

namespace sprun::tools {

struct TextSamples {
  std::string path, tokenizer;  // tokenizer: a file or folder, sprun/tokenizer.h
  int64_t length = 128;         // most tokens of a sample
  int64_t count = 0;            // most samples
};

// Samples in the order of the file, each with a leading axis of 1: the ids, and a mask where the
// model takes one. A line is a sample; a longer one is cut. With a mask they are padded to a
// multiple of 32 tokens, so that few shapes remain. kUsage if no input looks like token ids;
// kBadInput for text without tokens, ids that the model has no row for.
Result<std::vector<std::vector<NamedTensor>>> text_samples(const TextSamples& text,
                                                           const std::vector<TensorSpec>& specs);

}  // namespace sprun::tools
