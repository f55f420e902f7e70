// Every variant of the softmax family against the scalar reference.
#include "kernels/softmax/softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace sprun::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kCanary = -777.25F;

class SoftmaxTest : public testing::TestWithParam<KernelInfo<SoftmaxKernel>> {
 protected:
  void SetUp() override {
    if (!available_isas().contains(GetParam().isa))
      GTEST_SKIP() << isa_name(GetParam().isa) << " is not available";
  }
  const SoftmaxKernel& kernel() const { return *GetParam().kernel; }
  const SoftmaxKernel& reference() const { return *softmax_kernels().back().kernel; }
};

constexpr int64_t kSizes[] = {1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 67, 127, 384, 1000};

TEST_P(SoftmaxTest, RowsAgreeWithTheReferenceAndStayInside) {
  std::mt19937 rng(3);
  for (const float spread : {0.1F, 5.0F, 90.0F}) {
    std::uniform_real_distribution<float> uniform(-spread, spread);
    for (const int64_t n : kSizes) {
      SCOPED_TRACE(testing::Message() << "n " << n << " spread " << spread);
      const int64_t rows = 3;
      const int64_t ld = n + 5;
      std::vector<float> x(static_cast<size_t>(rows * ld + 1), kCanary);
      for (int64_t i = 0; i < rows * ld; ++i) {
        if (i % ld < n) x[static_cast<size_t>(i + 1)] = uniform(rng);
      }
      std::vector<float> got = x, want = x;
      kernel().softmax(got.data() + 1, got.data() + 1, rows, n, ld);  // in place, unaligned
      reference().softmax(x.data() + 1, want.data() + 1, rows, n, ld);
      const double tolerance = 1e-7 * (8 + static_cast<double>(n) / 8);
      for (size_t i = 0; i < x.size(); ++i)
        ASSERT_NEAR(got[i], want[i], tolerance * std::fabs(want[i]) + 1e-38) << i;

      got = x;
      kernel().log_softmax(got.data() + 1, got.data() + 1, rows, n, ld);
      reference().log_softmax(x.data() + 1, want.data() + 1, rows, n, ld);
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_NEAR(got[i], want[i], 4e-7 * std::fabs(want[i]) + 3e-7 * spread + 3e-7) << i;
      }
    }
  }
}

TEST_P(SoftmaxTest, MaskedElementsBecomeZero) {
  for (const int64_t n : kSizes) {
    std::vector<float> x(static_cast<size_t>(n), -kInf), y(static_cast<size_t>(n));
    x.back() = 2.0F;
    kernel().softmax(x.data(), y.data(), 1, n, n);
    for (size_t i = 0; i + 1 < y.size(); ++i) ASSERT_EQ(y[i], 0.0F);
    ASSERT_EQ(y.back(), 1.0F);
  }
}

TEST_P(SoftmaxTest, RowsWithoutANumberBecomeNan) {
  for (const int64_t n : kSizes) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInf}) {
      std::vector<float> x(static_cast<size_t>(n), 1.0F), y(static_cast<size_t>(n));
      x[static_cast<size_t>(n / 2)] = bad;
      kernel().softmax(x.data(), y.data(), 1, n, n);
      ASSERT_TRUE(std::isnan(y[static_cast<size_t>(n / 2)])) << n;
    }
    std::vector<float> x(static_cast<size_t>(n), -kInf), y(static_cast<size_t>(n));
    kernel().softmax(x.data(), y.data(), 1, n, n);
    for (const float v : y) ASSERT_TRUE(std::isnan(v)) << n;
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, SoftmaxTest,
                         testing::ValuesIn(softmax_kernels().begin(), softmax_kernels().end()),
                         [](const auto& variant) { return std::string(variant.param.name); });

}  // namespace
}  // namespace sprun::kernels
