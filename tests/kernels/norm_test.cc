// Every row normalisation variant of this machine against the scalar reference.
#include "kernels/norm/norm.h"
#include "tests/support/draw.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace sprun::kernels {
namespace {

using testing_support::kCanary;

constexpr int64_t kRows = 5;

unsigned seed() { return testing_support::seed_or(20240607U); }

// Around one and four vectors of 4, 8 and 16 lanes, primes, hidden sizes.
constexpr int64_t kSizes[] = {1,  2,  3,  4,  5,  7,  8,   9,   15,  16,  17,
                              31, 33, 63, 64, 65, 67, 131, 256, 768, 1031};

struct Features {
  bool residual, bias, gamma, beta, sum, stats;
  int64_t residual_rows;
};

constexpr Features kFeatures[] = {
    {false, false, true, true, false, false, 1},     {false, false, false, false, false, true, 1},
    {true, false, true, false, false, false, kRows}, {true, true, true, true, true, true, kRows},
    {true, true, false, true, true, false, 2},       {false, false, true, true, true, false, 1}};

std::vector<float> floats(int64_t n, std::mt19937& rng, float offset = 0) {
  std::uniform_real_distribution<float> uniform(offset - 1.0F, offset + 1.0F);
  std::vector<float> v(static_cast<size_t>(n + 1));  // callers use data() + 1: an unaligned base
  for (float& f : v) f = uniform(rng);
  return v;
}

struct Outputs {
  std::vector<float> y, sum, mean, inv_std;
};

// Runs rows in two uneven parts. `offset` is added to every input element.
Outputs run(const RowNormKernel& kernel, bool rms, int64_t n, const Features& f, float offset,
            bool in_place) {
  std::mt19937 rng(seed());
  std::vector<float> x = floats(kRows * n, rng, offset);
  const std::vector<float> residual = floats(f.residual_rows * n, rng), bias = floats(n, rng),
                           gamma = floats(n, rng), beta = floats(n, rng);
  const auto size = static_cast<size_t>(kRows * n + 2);
  Outputs out{std::vector<float>(size, kCanary), std::vector<float>(size, kCanary),
              std::vector<float>(kRows + 1, kCanary), std::vector<float>(kRows + 1, kCanary)};
  RowNormArgs args{.x = x.data() + 1,
                   .residual = f.residual ? residual.data() + 1 : nullptr,
                   .bias = f.bias ? bias.data() + 1 : nullptr,
                   .gamma = f.gamma ? gamma.data() + 1 : nullptr,
                   .beta = f.beta ? beta.data() + 1 : nullptr,
                   .y = out.y.data() + 1,
                   .sum = f.sum ? out.sum.data() + 1 : nullptr,
                   .mean = f.stats ? out.mean.data() : nullptr,
                   .inv_std = f.stats ? out.inv_std.data() : nullptr,
                   .n = n,
                   .residual_rows = f.residual_rows,
                   .epsilon = 1e-5F};
  if (in_place) args.y = x.data() + 1;
  const auto part = rms ? kernel.rms_norm : kernel.layer_norm;
  part(args, 0, 2);
  part(args, 2, kRows);
  if (in_place) std::copy(x.begin() + 1, x.end(), out.y.begin() + 1);
  EXPECT_EQ(out.y.front(), kCanary);
  EXPECT_EQ(out.y.back(), kCanary);
  EXPECT_EQ(out.sum.back(), kCanary);
  EXPECT_EQ(out.mean.back(), kCanary);
  return out;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& want, double tolerance,
                 const char* what) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double limit = tolerance * std::max(1.0, std::abs(static_cast<double>(want[i])));
    ASSERT_NEAR(static_cast<double>(got[i]), static_cast<double>(want[i]), limit)
        << what << " at " << i << " seed " << seed();
  }
}

class RowNormVariant : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (!available_isas().contains(info().isa)) GTEST_SKIP() << info().name << " cannot run here";
  }
  const KernelInfo<RowNormKernel>& info() const { return row_norm_kernels()[GetParam()]; }
  static const RowNormKernel& reference() { return *row_norm_kernels().back().kernel; }
};

TEST_P(RowNormVariant, AgreesWithTheReference) {
  for (bool rms : {false, true}) {
    for (int64_t n : kSizes) {
      for (const Features& f : kFeatures) {
        SCOPED_TRACE("n " + std::to_string(n) + (rms ? " rms" : " layer"));
        const Outputs got = run(*info().kernel, rms, n, f, 0, false);
        const Outputs want = run(reference(), rms, n, f, 0, false);
        // A row of one or two elements may have a variance far below epsilon's effect on float
        // sums.
        expect_near(got.y, want.y, 2e-5, "y");
        expect_near(got.sum, want.sum, 1e-6, "sum");
        expect_near(got.mean, want.mean, 1e-6, "mean");
        expect_near(got.inv_std, want.inv_std, 1e-5, "inv_std");
      }
    }
  }
}

TEST_P(RowNormVariant, WorksInPlace) {
  for (bool rms : {false, true}) {
    for (int64_t n : {1, 17, 67, 768}) {
      const Outputs apart = run(*info().kernel, rms, n, kFeatures[3], 0, false);
      const Outputs in_place = run(*info().kernel, rms, n, kFeatures[3], 0, true);
      EXPECT_EQ(in_place.y, apart.y);
      EXPECT_EQ(in_place.sum, apart.sum);
    }
  }
}

TEST_P(RowNormVariant, KeepsAccuracyWithALargeMean) {
  const Outputs got = run(*info().kernel, false, 768, kFeatures[0], 1000.0F, false);
  const Outputs want = run(reference(), false, 768, kFeatures[0], 1000.0F, false);
  expect_near(got.y, want.y, 5e-4, "y");
}

INSTANTIATE_TEST_SUITE_P(Kernels, RowNormVariant,
                         testing::Range<size_t>(0, row_norm_kernels().size()),
                         [](const auto& test) {
                           return std::string(row_norm_kernels()[test.param].name);
                         });

}  // namespace
}  // namespace sprun::kernels
