// Sampler: distributions by chi-square with fixed seeds, the order of the steps, edges and errors.
#include "sprun/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace sprun {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Sampler make(const SamplingOptions& options) { return Sampler::create(options).value(); }

std::vector<float> random_logits(size_t n, unsigned seed, float sigma = 3) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> logits(n);
  for (float& x : logits) x = normal(rng);
  return logits;
}

// The documented steps in long doubles, with a full sort.
std::vector<double> reference(const SamplingOptions& o, std::vector<float> logits,
                              const std::vector<int64_t>& history) {
  std::vector<bool> seen(logits.size());
  for (const int64_t id : history) seen[static_cast<size_t>(id)] = true;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (seen[i])
      logits[i] =
          logits[i] > 0 ? logits[i] / o.repetition_penalty : logits[i] * o.repetition_penalty;
  }
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  if (o.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(o.top_k)));
  std::vector<long double> weights;
  for (const size_t i : order)
    weights.push_back(
        std::exp((static_cast<long double>(logits[i]) - logits[order[0]]) / o.temperature));
  const long double total = std::accumulate(weights.begin(), weights.end(), 0.0L);
  long double sum = 0;
  size_t kept = 0;
  while (kept < order.size() && (kept == 0 || sum < o.top_p * total)) sum += weights[kept++];
  std::vector<double> p(logits.size());
  long double rest = 0;
  for (size_t i = 0; i < kept; ++i) rest += weights[i] >= o.min_p ? weights[i] : 0;
  for (size_t i = 0; i < kept; ++i)
    p[order[i]] = weights[i] >= o.min_p ? static_cast<double>(weights[i] / rest) : 0;
  return p;
}

// Pearson's statistic over cells with at least 5 expected draws (the others pooled) against its
// mean plus five standard deviations; tokens of probability 0 must never come.
void expect_distribution(const SamplingOptions& options, const std::vector<float>& logits,
                         const std::vector<int64_t>& history = {}) {
  constexpr int kDraws = 20'000;
  Sampler sampler = make(options);
  std::vector<int> counts(logits.size());
  for (int i = 0; i < kDraws; ++i)
    ++counts[static_cast<size_t>(sampler.sample(logits, history).value())];
  const std::vector<double> p = reference(options, logits, history);
  double chi = 0, pooled_expected = 0, pooled_count = 0, cells = 0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double expected = p[i] * kDraws;
    if (expected == 0) {
      EXPECT_EQ(counts[i], 0) << i;
    } else if (expected < 5) {
      pooled_expected += expected;
      pooled_count += counts[i];
    } else {
      chi += (counts[i] - expected) * (counts[i] - expected) / expected;
      ++cells;
    }
  }
  if (pooled_expected >= 5) {
    chi += (pooled_count - pooled_expected) * (pooled_count - pooled_expected) / pooled_expected;
    ++cells;
  }
  const double freedom = cells - 1;
  EXPECT_LE(chi, freedom + 5 * std::sqrt(2 * freedom) + 1) << "of " << cells << " cells";
}

TEST(Sampling, DrawsByTheSoftmax) {
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    expect_distribution({.temperature = temperature, .seed = 1}, random_logits(7, 1));
    expect_distribution({.temperature = temperature, .seed = 2}, random_logits(300, 2, 1));
  }
  expect_distribution({.temperature = 1, .seed = 3}, std::vector<float>(100, -7.5f));
}

TEST(Sampling, KeepsWhatTopKTopPAndMinPKeep) {
  const std::vector<float> logits = random_logits(200, 5);
  for (const int64_t k : {int64_t{2}, int64_t{17}, int64_t{5000}})
    expect_distribution({.temperature = 1, .top_k = k, .seed = 4}, logits);
  for (const float p : {1e-6f, 0.3f, 0.9f, 0.999f})
    expect_distribution({.temperature = 1, .top_p = p, .seed = 5}, logits);
  for (const float p : {0.01f, 0.2f, 1.0f})
    expect_distribution({.temperature = 1, .min_p = p, .seed = 6}, logits);
  expect_distribution({.temperature = 1.5f, .top_k = 40, .top_p = 0.8f, .min_p = 0.05f, .seed = 7},
                      logits);
}

TEST(Sampling, PunishesRepetitionOnce) {
  const std::vector<float> logits = {2, 1, -1, 0.5f, -0.5f};
  expect_distribution({.repetition_penalty = 1.5f, .temperature = 1, .seed = 8}, logits,
                      {0, 2, 0, 0, 2});
  expect_distribution({.repetition_penalty = 0.5f, .temperature = 1, .seed = 9}, logits, {1, 4});
  Sampler greedy = make({.repetition_penalty = 3});
  EXPECT_EQ(greedy.sample(logits).value(), 0);
  EXPECT_EQ(greedy.sample(logits, std::vector<int64_t>{0, 0}).value(), 1);
}

TEST(Sampling, GreedyTakesTheLowestOfEquals) {
  Sampler sampler = make({});
  EXPECT_EQ(sampler.sample(std::vector<float>{1, 5, 5, 5}).value(), 1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-kInf, -kInf, -3}).value(), 2);
  EXPECT_EQ(sampler.sample(std::vector<float>{0.0f, -0.0f}).value(), 0);
  EXPECT_EQ(sampler.sample(std::vector<float>{-2}).value(), 0);
  Sampler only_one = make({.temperature = 3, .top_k = 1, .seed = 4});
  EXPECT_EQ(only_one.sample(std::vector<float>{1, 5, 5, 5}).value(), 1);
  Sampler two = make({.temperature = 3, .top_k = 2, .seed = 4});
  for (int i = 0; i < 200; ++i) EXPECT_LE(two.sample(std::vector<float>{5, 5, 5, 5}).value(), 1);
}

// The same numbers on every machine: these were drawn once.
TEST(Sampling, IsAFunctionOfTheSeed) {
  const auto draw = [](const SamplingOptions& options, int count) {
    Sampler sampler = make(options);
    std::vector<float> logits(50);
    for (size_t i = 0; i < logits.size(); ++i)
      logits[i] = static_cast<float>(i % 7) * 0.5f - static_cast<float>(i % 3);
    std::vector<int64_t> ids;
    for (int i = 0; i < count; ++i) ids.push_back(sampler.sample(logits).value());
    return ids;
  };
  EXPECT_EQ(draw({.temperature = 1, .seed = 42}, 12),
            (std::vector<int64_t>{18, 48, 27, 6, 33, 6, 10, 36, 6, 34, 33, 9}));
  EXPECT_EQ(draw({.temperature = 0.7f, .top_k = 20, .top_p = 0.9f, .seed = 42}, 8),
            (std::vector<int64_t>{13, 48, 27, 6, 33, 6, 6, 34}));
  EXPECT_EQ(draw({.temperature = 1, .seed = 7}, 100), draw({.temperature = 1, .seed = 7}, 100));
  EXPECT_NE(draw({.temperature = 1, .seed = 7}, 100), draw({.temperature = 1, .seed = 8}, 100));
}

TEST(Sampling, ResetStartsTheSeriesAgain) {
  const std::vector<float> logits = random_logits(100, 3, 1);
  Sampler sampler = make({.temperature = 1, .seed = 11});
  std::vector<int64_t> first, second;
  for (int i = 0; i < 50; ++i) first.push_back(sampler.sample(logits).value());
  sampler.reset();
  for (int i = 0; i < 50; ++i) second.push_back(sampler.sample(logits).value());
  EXPECT_EQ(first, second);
}

// Limits that keep everything draw the same tokens as no limits, although they sort.
TEST(Sampling, SortingDoesNotChangeTheDraw) {
  for (const size_t n : {size_t{1}, size_t{2}, size_t{63}, size_t{64}, size_t{65}, size_t{1009}}) {
    Sampler plain = make({.temperature = 1, .seed = 13});
    Sampler all_k = make({.temperature = 1, .top_k = static_cast<int64_t>(n), .seed = 13});
    Sampler all_p = make({.temperature = 1, .top_p = std::nextafter(1.0f, 0.0f), .seed = 13});
    for (unsigned i = 0; i < 100; ++i) {
      const std::vector<float> logits = random_logits(n, i, 0.5f);
      const int64_t id = plain.sample(logits).value();
      EXPECT_EQ(all_k.sample(logits).value(), id);
      EXPECT_EQ(all_p.sample(logits).value(), id);
    }
  }
}

TEST(Sampling, ExtremeLogitsAreFine) {
  Sampler sampler = make(
      {.repetition_penalty = 1000, .temperature = 1e-30f, .top_p = 0.5f, .min_p = 0.5f, .seed = 1});
  constexpr float kMax = std::numeric_limits<float>::max();
  EXPECT_EQ(
      sampler.sample(std::vector<float>{-kMax, kMax, 3e38f, -kInf}, std::vector<int64_t>{0, 3})
          .value(),
      1);
  EXPECT_EQ(sampler.sample(std::vector<float>{-kMax, -kInf}, std::vector<int64_t>{0}).value(), 0);
  Sampler hot = make({.temperature = 1000, .seed = 1});
  for (int i = 0; i < 100; ++i) EXPECT_NE(hot.sample(std::vector<float>{1, -kInf, 2}).value(), 1);
}

TEST(Sampling, BadLogitsAndHistoryAreErrors) {
  Sampler sampler = make({.temperature = 1, .seed = 3});
  Sampler same = make({.temperature = 1, .seed = 3});
  const auto message = [&](std::vector<float> logits, std::vector<int64_t> history = {}) {
    const auto result = sampler.sample(logits, history);
    EXPECT_EQ(result.status().code(), Code::kBadInput);
    return result.status().message();
  };
  EXPECT_EQ(message({0, 1, kNan, kNan}), "logits[2] is NaN");
  EXPECT_EQ(message({0, kInf, kNan}), "logits[1] is +inf");
  EXPECT_EQ(message({-kInf, -kInf}), "logits: all 2 are -inf, no token can be taken");
  EXPECT_EQ(message({}), "logits: expected 1 to 2^30 numbers, got 0");
  EXPECT_EQ(message({1, 2}, {0, 2}), "history[1]: expected an id below 2, got 2");
  EXPECT_EQ(message({1, 2}, {-1}), "history[0]: expected an id below 2, got -1");
  const std::vector<float> logits = random_logits(500, 1, 1);
  EXPECT_EQ(sampler.sample(logits).value(), same.sample(logits).value());  // errors draw no number
}

TEST(Sampling, OptionsOutsideTheirRangeAreErrors) {
  const auto message = [](const SamplingOptions& options) {
    const auto sampler = Sampler::create(options);
    EXPECT_EQ(sampler.status().code(), Code::kUsage);
    return sampler.status().message();
  };
  EXPECT_EQ(message({.temperature = -1}),
            "temperature: expected a number in [0, 1000], got -1.000000");
  EXPECT_EQ(message({.temperature = kNan}).substr(0, 12), "temperature:");
  EXPECT_EQ(message({.top_k = -2}), "top_k: expected 0 (all) or a positive number, got -2");
  EXPECT_EQ(message({.top_p = 0}), "top_p: expected a number in (0, 1], got 0.000000");
  EXPECT_EQ(message({.top_p = 1.5f}).substr(0, 6), "top_p:");
  EXPECT_EQ(message({.min_p = 1.5f}).substr(0, 6), "min_p:");
  EXPECT_EQ(message({.repetition_penalty = 0}).substr(0, 19), "repetition_penalty:");
  EXPECT_EQ(message({.repetition_penalty = kInf}).substr(0, 19), "repetition_penalty:");
}

}  // namespace
}  // namespace sprun
