// Every variant of the reduce family against the scalar reference.
#include "kernels/reduce/reduce.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace sprun::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class ReduceTest : public testing::TestWithParam<KernelInfo<ReduceKernel>> {
 protected:
  void SetUp() override {
    if (!available_isas().contains(GetParam().isa))
      GTEST_SKIP() << isa_name(GetParam().isa) << " is not available";
  }
  const ReduceKernel& kernel() const { return *GetParam().kernel; }
  const ReduceKernel& reference() const { return *reduce_kernels().back().kernel; }
};

constexpr int64_t kSizes[] = {1,  2,  3,  7,   8,   15,   16,   17,   31,
                              63, 64, 65, 127, 768, 4096, 4099, 70001};

TEST_P(ReduceTest, RowsAgreeWithTheReference) {
  std::mt19937 rng(9);
  std::uniform_real_distribution<float> uniform(-1.0F, 3.0F);
  for (const int64_t n : kSizes) {
    SCOPED_TRACE(n);
    const int64_t rows = 2;
    const int64_t ld = n + 3;
    std::vector<float> x(static_cast<size_t>(rows * ld + 1),
                         1e30F);  // gaps would show in every result
    for (int64_t i = 0; i < rows * ld; ++i) {
      if (i % ld < n) x[static_cast<size_t>(i + 1)] = uniform(rng);
    }
    float terms[2], got[3] = {0, 0, -5.5F}, want[2];
    reference().sum_abs(x.data() + 1, rows, n, ld, terms);
    for (auto member : {&ReduceKernel::sum, &ReduceKernel::sum_abs, &ReduceKernel::sum_squares}) {
      (kernel().*member)(x.data() + 1, rows, n, ld, got);
      (reference().*member)(x.data() + 1, rows, n, ld, want);
      for (int r = 0; r < 2; ++r) EXPECT_NEAR(got[r], want[r], 3 * terms[r] * 3e-6);
    }
    for (auto member : {&ReduceKernel::max, &ReduceKernel::min}) {
      (kernel().*member)(x.data() + 1, rows, n, ld, got);
      (reference().*member)(x.data() + 1, rows, n, ld, want);
      for (int r = 0; r < 2; ++r) EXPECT_EQ(got[r], want[r]);
    }
    EXPECT_EQ(got[2], -5.5F);
  }
}

TEST_P(ReduceTest, MaxAndMinKeepNanAndInfinityWhereverTheyAre) {
  for (const int64_t n : {1, 5, 16, 37}) {
    for (int64_t at = 0; at < n; ++at) {
      std::vector<float> x(static_cast<size_t>(n), 1.0F);
      float y;
      x[static_cast<size_t>(at)] = kNan;
      kernel().max(x.data(), 1, n, n, &y);
      EXPECT_TRUE(std::isnan(y));
      kernel().min(x.data(), 1, n, n, &y);
      EXPECT_TRUE(std::isnan(y));
      x[static_cast<size_t>(at)] = kInf;
      kernel().max(x.data(), 1, n, n, &y);
      EXPECT_EQ(y, kInf);
      x[static_cast<size_t>(at)] = -kInf;
      kernel().min(x.data(), 1, n, n, &y);
      EXPECT_EQ(y, -kInf);
    }
  }
}

TEST_P(ReduceTest, LongSumsStayAccurate) {
  const int64_t n = 1 << 20;
  std::vector<float> x(static_cast<size_t>(n), 0.1F);
  float y;
  kernel().sum(x.data(), 1, n, n, &y);
  EXPECT_NEAR(y / (0.1F * static_cast<float>(n)), 1.0F, 1e-6F);
}

INSTANTIATE_TEST_SUITE_P(Variants, ReduceTest,
                         testing::ValuesIn(reduce_kernels().begin(), reduce_kernels().end()),
                         [](const auto& variant) { return std::string(variant.param.name); });

}  // namespace
}  // namespace sprun::kernels
