// Sampler: the next token from a row of logits.
//
//   auto sampler = sprun::Sampler::create({.temperature = 0.8f, .top_p = 0.95f, .seed =
//   7}).value(); int64_t id = sampler.sample(logits, history).value();
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sprun/export.h"
#include "sprun/status.h"

namespace sprun {

// Applied in this order; each step works on what the one before it left.
struct SamplingOptions {
  // Logits of tokens in the history: divided by this if positive, else multiplied. 1: off. In (0,
  // 1000].
  float repetition_penalty = 1;
  // Logits are divided by this. 0: greedy, the largest logit, the lowest id among equals. In [0,
  // 1000].
  float temperature = 0;
  // Only the k largest logits, lower ids first among equals. 0: all.
  int64_t top_k = 0;
  // Of those, by falling probability, the fewest that together reach this probability. 1: all. In
  // (0, 1].
  float top_p = 1;
  // Of those, the ones with at least this part of the largest probability. 0: all. In [0, 1].
  float min_p = 0;
  // The same seed, options and rows of logits give the same tokens on every machine.
  uint64_t seed = 0;
};

// kUsage with the name, the range and the value of the first option outside its range.
SPRUN_API Status validate(const SamplingOptions& options);

// One sequence: each call draws the next number of the seed's series. Not thread-safe; allocates
// only when the vocabulary grows.
class SPRUN_API Sampler {
 public:
  // kUsage: an option outside its range.
  static Result<Sampler> create(const SamplingOptions& options);

  // An id in [0, logits.size()). -inf marks tokens that must not be taken. history: ids so far, for
  // the penalty. kBadInput: no logits, NaN or +inf (the message names the first position), all
  // -inf, an id of history outside; kResourceLimit: no memory. After an error the series of numbers
  // is where it was.
  Result<int64_t> sample(std::span<const float> logits, std::span<const int64_t> history = {});

  const SamplingOptions& options() const { return options_; }
  // Starts the series of numbers again.
  void reset() { step_ = 0; }

 private:
  struct Candidate {
    float logit;
    int32_t id;
    double weight;  // probability relative to the largest logit
  };

  explicit Sampler(const SamplingOptions& options) : options_(options) {}
  Status load(std::span<const float> logits, std::span<const int64_t> history);
  void keep_top_k();
  void keep_top_p();
  void keep_min_p();
  int64_t draw();

  SamplingOptions options_;
  uint64_t step_ = 0;
  std::vector<float> logits_;
  std::vector<Candidate> candidates_;
};

}  // namespace sprun
