// Statistical and exact top-k: the quantile, every variant of this machine against double, ties.
#include "kernels/topk/topk.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/support/draw.h"
#include "tests/support/aligned.h"

namespace sprun::kernels {
namespace {

using testing_support::aligned;

constexpr int32_t kCanary = -77;

unsigned seed() { return testing_support::seed_or(20240607U); }

std::vector<float> normal_row(int64_t n, unsigned salt) {
  std::mt19937 rng(seed() + salt);
  std::normal_distribution<float> normal(0.3F, 1.7F);
  std::vector<float> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(normal(rng));
  return x;
}

template <class Fn>
void for_each_variant(Fn fn) {
  for (const auto& info : topk_kernels()) {
    if (available_isas().contains(info.isa)) fn(*info.kernel, std::string(info.name));
  }
}

TEST(GaussianQuantile, HasDoubleAccuracy) {
  // Values of the inverse normal distribution function to 16 digits.
  const double known[][2] = {
      {0.95, 1.6448536269514722},    {0.92, 1.4050715603096329}, {0.9, 1.2815515655446004},
      {0.8, 0.8416212335729143},     {0.975, 1.959963984540054}, {0.6, 0.2533471031357997},
      {0.01, -2.3263478740408408},   {1e-5, -4.264890793922602}, {1e-10, -6.361340902404056},
      {1e-100, -21.273453560965887}, {1e-6, -4.753424308822899}, {0.5, 0.0}};
  for (const auto& [p, q] : known) {
    EXPECT_NEAR(gaussian_quantile(p), q, 1e-12 * std::max(1.0, std::fabs(q))) << p;
  }
}

TEST(GaussianQuantile, InvertsTheDistributionFunction) {
  for (double p = 1e-12; p < 0.5; p *= 1.7) {
    const double x = gaussian_quantile(p);
    EXPECT_NEAR(0.5 * std::erfc(-x / std::sqrt(2.0)) / p, 1.0, 1e-12) << p;
    EXPECT_NEAR(gaussian_quantile(1.0 - p), -gaussian_quantile(1.0 - (1.0 - p)), 1e-12) << p;
  }
}

TEST(GaussianQuantile, EndsAndNonsense) {
  EXPECT_EQ(gaussian_quantile(0.0), -std::numeric_limits<double>::infinity());
  EXPECT_EQ(gaussian_quantile(1.0), std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(gaussian_quantile(-0.1)));
  EXPECT_TRUE(std::isnan(gaussian_quantile(1.1)));
  EXPECT_TRUE(std::isnan(gaussian_quantile(std::nan(""))));
  EXPECT_EQ(stat_top_k_z(0, 10), std::numeric_limits<double>::infinity());
  EXPECT_EQ(stat_top_k_z(10, 10), -std::numeric_limits<double>::infinity());
  EXPECT_NEAR(stat_top_k_z(8, 100), 1.4050715603096329, 1e-12);
}

struct Exact {
  double theta, deviation;
};

Exact exact_theta(const std::vector<float>& x, double z, int ddof) {
  const double n = static_cast<double>(x.size());
  double mean = 0;
  for (float v : x) mean += static_cast<double>(v) / n;
  double squares = 0;
  for (float v : x) squares += (static_cast<double>(v) - mean) * (static_cast<double>(v) - mean);
  const double deviation = std::sqrt(squares / std::max(n - ddof, 1.0));
  return {mean + z * deviation, deviation};
}

// ids must be all i with x[i] > theta, but for those within 1e-6 deviations of it.
void expect_mask(const std::vector<float>& x, const Exact& exact, const int32_t* ids, int64_t count,
                 const std::string& what) {
  int64_t at = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const bool kept = at < count && ids[at] == static_cast<int32_t>(i);
    if (kept) ++at;
    const double distance = static_cast<double>(x[i]) - exact.theta;
    if (std::fabs(distance) < 1e-6 * exact.deviation) continue;
    ASSERT_EQ(kept, distance > 0) << what << " entry " << i;
  }
  EXPECT_EQ(at, count) << what;
}

TEST(StatTopK, MaskMatchesDouble) {
  for (int64_t d : {1, 2, 7, 15, 16, 17, 31, 35, 127, 256, 1009, 4096}) {
    for (int ddof : {0, 1}) {
      const std::vector<float> x = normal_row(2 * d + 3, static_cast<unsigned>(d));
      for_each_variant([&](const TopKKernel& kernel, const std::string& name) {
        StatTopKArgs a;
        a.x = x.data() + 1;  // unaligned
        a.ldx = d + 2;
        a.rows = 2;
        a.d = d;
        a.z = stat_top_k_z(1, 10);
        a.ddof = ddof;
        a.ld_ids = d + kIndexSlack;
        std::vector<int32_t> ids(static_cast<size_t>(2 * a.ld_ids + 1), kCanary);
        std::vector<float> values(ids.size());
        float theta[2];
        int64_t counts[2];
        a.theta = theta;
        a.ids = ids.data();
        a.values = values.data();
        a.counts = counts;
        stat_top_k(kernel, a);
        EXPECT_EQ(ids.back(), kCanary);
        for (int64_t r = 0; r < 2; ++r) {
          const auto begin = x.begin() + 1 + r * a.ldx;
          const std::vector<float> row(begin, begin + d);
          const int32_t* row_ids = ids.data() + r * a.ld_ids;
          expect_mask(row, exact_theta(row, a.z, ddof), row_ids, counts[r], name);
          for (int64_t i = 0; i < counts[r]; ++i) {
            ASSERT_EQ(values[static_cast<size_t>(r * a.ld_ids + i)],
                      row[static_cast<size_t>(row_ids[i])] - theta[r]);
          }
        }
      });
    }
  }
}

TEST(StatTopK, DensityOfGaussianRowsIsWithinOnePoint) {
  for (int64_t d : {256, 1024, 8192, 65536}) {
    // One row of 256 may be off by chance: the mean over rows is what is promised.
    const int64_t rows = std::max<int64_t>(1, 65536 / d);
    const std::vector<float> x = normal_row(rows * d, static_cast<unsigned>(d) + 1);
    for (int64_t percent : {2, 5, 8, 10, 20}) {
      for_each_variant([&](const TopKKernel& kernel, const std::string& name) {
        const double z = stat_top_k_z(d * percent / 100, d);
        std::vector<int32_t> ids(static_cast<size_t>(rows * (d + kIndexSlack)));
        std::vector<int64_t> counts(static_cast<size_t>(rows));
        StatTopKArgs a{
            x.data(),     d, rows, d, z, 0, nullptr, ids.data(), nullptr, d + kIndexSlack,
            counts.data()};
        stat_top_k(kernel, a);
        double total = 0;
        for (int64_t c : counts) total += static_cast<double>(c);
        const double density = 100 * total / static_cast<double>(rows * d);
        EXPECT_NEAR(density, static_cast<double>(percent), 1.0) << name << " d " << d;
      });
    }
  }
}

TEST(StatTopK, ConstantRowsAndNonNumbers) {
  for_each_variant([&](const TopKKernel& kernel, const std::string& name) {
    const float inf = std::numeric_limits<float>::infinity();
    const std::vector<float> row = {
        inf, 1, std::nanf(""), -inf, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 5};
    std::vector<int32_t> ids(row.size() + kIndexSlack);
    const auto n = static_cast<int64_t>(row.size());
    ASSERT_EQ(kernel.select_above(row.data(), n, 2.5F, 100, ids.data(), nullptr), 3) << name;
    EXPECT_EQ(ids[0], 100);
    EXPECT_EQ(ids[1], 104);
    EXPECT_EQ(ids[2], 118);
    const std::vector<float> constant(100, 0.1F);
    double sum, squares;
    kernel.moments(constant.data(), 100, &sum, &squares);
    EXPECT_NEAR(static_cast<double>(stat_threshold(sum, squares, 100, 1.0, 0)), 0.1, 1e-6) << name;
  });
  EXPECT_EQ(stat_threshold(0, 0, 0, 1, 0), 0.0F);
}

TEST(SelectNonZero, TakesTheUnionOfRows) {
  for (int64_t n : {1, 15, 16, 17, 33, 100}) {
    const int64_t ldx = n + 3;
    std::vector<float> x(static_cast<size_t>(3 * ldx), 9.0F);
    std::vector<int32_t> want;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t r = 0; r < 3; ++r) {
        x[static_cast<size_t>(r * ldx + i)] = i % 7 == r ? -1.0F : r == 0 ? -0.0F : 0.0F;
      }
      if (i % 7 < 3) want.push_back(static_cast<int32_t>(i) + 5);
    }
    for_each_variant([&](const TopKKernel& kernel, const std::string& name) {
      std::vector<int32_t> ids(static_cast<size_t>(n + kIndexSlack));
      const int64_t count = kernel.select_non_zero(x.data(), ldx, 3, n, 5, ids.data());
      ids.resize(static_cast<size_t>(count));
      EXPECT_EQ(ids, want) << name;
    });
  }
}

// The indices that a stable sort would keep, ascending.
std::vector<int32_t> sorted_top(const std::vector<float>& x, int64_t k, bool by_abs) {
  std::vector<int32_t> order(x.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return top_k_key(x[static_cast<size_t>(a)], by_abs) >
           top_k_key(x[static_cast<size_t>(b)], by_abs);
  });
  order.resize(static_cast<size_t>(std::min<int64_t>(k, static_cast<int64_t>(x.size()))));
  std::sort(order.begin(), order.end());
  return order;
}

TEST(ExactTopK, KeepsWhatASortKeeps) {
  for (int64_t n : {1, 2, 17, 100, 1000, 13824}) {
    std::vector<float> x = normal_row(n, static_cast<unsigned>(n) + 3);
    for (size_t i = 0; i < x.size(); i += 3) x[i] = std::round(x[i]);  // many ties
    for (bool by_abs : {false, true}) {
      for (int64_t k : {int64_t{0}, int64_t{1}, n / 12, n / 2, n, n + 5}) {
        const auto scratch = aligned(top_k_scratch_bytes(n), 0);
        const TopKCut cut = top_k_cut(x.data(), n, k, by_abs, scratch.get());
        std::vector<int32_t> ids(static_cast<size_t>(n));
        ids.resize(static_cast<size_t>(top_k_ids(x.data(), n, by_abs, cut, ids.data())));
        EXPECT_EQ(ids, sorted_top(x, k, by_abs)) << n << " " << k;
        std::vector<float> kept(x.size(), 1.0F);
        top_k_keep(x.data(), n, by_abs, cut, kept.data());
        size_t at = 0;
        for (size_t i = 0; i < x.size(); ++i) {
          const bool in = at < ids.size() && ids[at] == static_cast<int32_t>(i);
          if (in) ++at;
          ASSERT_EQ(kept[i], in ? x[i] : 0.0F);
        }
      }
    }
  }
}

TEST(ExactTopK, OrdersSignsAndNonNumbers) {
  EXPECT_GT(top_k_key(1.0F, false), top_k_key(-2.0F, false));
  EXPECT_LT(top_k_key(1.0F, true), top_k_key(-2.0F, true));
  EXPECT_GT(top_k_key(std::nanf(""), false), top_k_key(INFINITY, false));
  EXPECT_GT(top_k_key(-std::nanf(""), true), top_k_key(INFINITY, true));
  EXPECT_LT(top_k_key(-INFINITY, false), top_k_key(-1e38F, false));
  EXPECT_EQ(top_k_key(-0.0F, false), top_k_key(0.0F, false));
}

}  // namespace
}  // namespace sprun::kernels
