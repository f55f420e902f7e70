// Sampling from logits. Only additions, multiplications, divisions and comparisons of IEEE doubles
// in a fixed order: the exponential of the C library differs between machines in its last bit, and
// such a bit may change a token.
#include "sprun/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <new>
#include <string>

namespace sprun {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr size_t kMaxVocab = size_t{1} << 30;
// Below exp(this) a weight counts as zero: 2^-144 of the largest.
constexpr double kSmallestExponent = -100;

// exp(x) for x in [kSmallestExponent, 0], relative error below 1e-15: x = n*ln2 + r, |r| <= ln2/2,
// Taylor in r.
double fixed_exp(double x) {
  constexpr double kInvLn2 = 1.4426950408889634;
  constexpr double kLn2High = 0x1.62e42feep-1;  // few bits, so that n * kLn2High is exact
  constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
  const auto n = static_cast<int64_t>(x * kInvLn2 - 0.5);  // x <= 0: truncation rounds to nearest
  const double r = (x - static_cast<double>(n) * kLn2High) - static_cast<double>(n) * kLn2Low;
  constexpr double kInverseFactorials[] = {1.0 / 6227020800,
                                           1.0 / 479001600,
                                           1.0 / 39916800,
                                           1.0 / 3628800,
                                           1.0 / 362880,
                                           1.0 / 40320,
                                           1.0 / 5040,
                                           1.0 / 720,
                                           1.0 / 120,
                                           1.0 / 24,
                                           1.0 / 6,
                                           0.5,
                                           1.0,
                                           1.0};
  double sum = 0;
  for (const double c : kInverseFactorials) sum = sum * r + c;
  return sum * std::bit_cast<double>(static_cast<uint64_t>(1023 + n) << 52);
}

// SplitMix64's output function: a bijection of 64 bits that leaves no visible pattern.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// Number `step` of the series of `seed`, uniform in [0, 1) with 53 bits. A function of both alone.
double uniform(uint64_t seed, uint64_t step) {
  constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;
  return static_cast<double>(mix(mix(seed + kGolden) + (step + 1) * kGolden) >> 11) * 0x1p-53;
}

Status out_of_range(const char* name, const char* range, float value) {
  return {Code::kUsage,
          std::string(name) + ": expected a number in " + range + ", got " + std::to_string(value)};
}

float penalised(float logit, float penalty) {
  const double p = penalty;
  const double changed = logit > 0 ? logit / p : logit * p;
  constexpr double kMax = std::numeric_limits<float>::max();
  return logit == -kInf ? logit : static_cast<float>(std::clamp(changed, -kMax, kMax));
}

}  // namespace

Status validate(const SamplingOptions& o) {
  if (!(o.repetition_penalty > 0 && o.repetition_penalty <= 1000)) {
    return out_of_range("repetition_penalty", "(0, 1000]", o.repetition_penalty);
  }
  if (!(o.temperature >= 0 && o.temperature <= 1000))
    return out_of_range("temperature", "[0, 1000]", o.temperature);
  if (o.top_k < 0) {
    return {Code::kUsage,
            "top_k: expected 0 (all) or a positive number, got " + std::to_string(o.top_k)};
  }
  if (!(o.top_p > 0 && o.top_p <= 1)) return out_of_range("top_p", "(0, 1]", o.top_p);
  if (!(o.min_p >= 0 && o.min_p <= 1)) return out_of_range("min_p", "[0, 1]", o.min_p);
  return {};
}

Result<Sampler> Sampler::create(const SamplingOptions& options) {
  SPRUN_TRY(validate(options));
  return Sampler(options);
}

// Copies the row into logits_, checked and with the penalty.
Status Sampler::load(std::span<const float> logits, std::span<const int64_t> history) {
  if (logits.empty() || logits.size() > kMaxVocab) {
    return {Code::kBadInput,
            "logits: expected 1 to 2^30 numbers, got " + std::to_string(logits.size())};
  }
  bool any = false;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] < kInf)) {
      return {Code::kBadInput,
              "logits[" + std::to_string(i) + "] is " + (logits[i] == kInf ? "+inf" : "NaN")};
    }
    any |= logits[i] > -kInf;
  }
  if (!any)
    return {Code::kBadInput,
            "logits: all " + std::to_string(logits.size()) + " are -inf, no token can be taken"};
  logits_.assign(logits.begin(), logits.end());
  for (size_t i = 0; i < history.size(); ++i) {
    const int64_t id = history[i];
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) {
      return {Code::kBadInput, "history[" + std::to_string(i) + "]: expected an id below " +
                                   std::to_string(logits.size()) + ", got " + std::to_string(id)};
    }
    // From the caller's row, so that a token met twice is not punished twice.
    logits_[static_cast<size_t>(id)] =
        penalised(logits[static_cast<size_t>(id)], options_.repetition_penalty);
  }
  return {};
}

void Sampler::keep_top_k() {
  const auto k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  const auto larger = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<int64_t>(k),
                   candidates_.end(), larger);
  candidates_.resize(k);
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

void Sampler::keep_top_p() {
  if (options_.top_p >= 1) return;
  double total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  const double wanted = total * options_.top_p;
  const auto larger = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  // Usually a few tokens suffice, so only as many as needed are sorted, in growing parts.
  double sum = 0;
  size_t sorted = 0, kept = 0;
  while (kept < candidates_.size() && (kept == 0 || sum < wanted)) {
    if (kept == sorted) {
      sorted = std::min(candidates_.size(), std::max<size_t>(64, sorted * 4));
      const auto begin = candidates_.begin() + static_cast<int64_t>(kept);
      std::partial_sort(begin, candidates_.begin() + static_cast<int64_t>(sorted),
                        candidates_.end(), larger);
    }
    sum += candidates_[kept++].weight;
  }
  candidates_.resize(kept);
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

void Sampler::keep_min_p() {
  if (options_.min_p <= 0) return;
  const double least = options_.min_p;  // the largest weight is 1
  std::erase_if(candidates_, [least](const Candidate& c) { return c.weight < least; });
}

// Walks the candidates in the order of their ids, so that it does not matter how they were found.
int64_t Sampler::draw() {
  double total = 0;
  for (const Candidate& c : candidates_) total += c.weight;
  double rest = uniform(options_.seed, step_++) * total;
  int64_t last = candidates_.front().id;
  for (const Candidate& c : candidates_) {
    if (c.weight <= 0) continue;
    last = c.id;
    if (rest < c.weight) break;
    rest -= c.weight;
  }
  return last;  // the last possible one if rounding left a rest
}

Result<int64_t> Sampler::sample(std::span<const float> logits,
                                std::span<const int64_t> history) try {
  SPRUN_TRY(load(logits, history));
  const auto best = std::max_element(logits_.begin(), logits_.end());
  if (options_.temperature == 0 || options_.top_k == 1) {
    ++step_;
    return static_cast<int64_t>(best - logits_.begin());
  }
  const float largest = *best;
  candidates_.clear();
  for (size_t i = 0; i < logits_.size(); ++i) {
    if (logits_[i] > -kInf) candidates_.push_back({logits_[i], static_cast<int32_t>(i), 0});
  }
  keep_top_k();
  const double temperature = options_.temperature;
  for (Candidate& c : candidates_) {
    const double x = (static_cast<double>(c.logit) - largest) / temperature;
    c.weight = x >= kSmallestExponent ? fixed_exp(x) : 0;
  }
  keep_top_p();
  keep_min_p();
  return draw();
} catch (const std::bad_alloc&) {
  return Status(Code::kResourceLimit, "no memory for " + std::to_string(logits.size()) + " logits");
}

}  // namespace sprun
