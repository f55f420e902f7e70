// The peak loops bound what products reach: a loop that keeps its sums in memory would not.
#include "kernels/peak/peak.h"

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "tests/support/aligned.h"
#include "tests/support/serial_parallel_for.h"

namespace sprun::kernels {
namespace {

using testing_support::SerialParallelFor;

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Operations a second of one call of work(), which returns their number.
template <class Work>
double rate(const Work& work) {
  const double start = cpu_seconds();
  const double operations = work();
  return operations / (cpu_seconds() - start);
}

// A product whose operands stay in cache.
struct Product {
  static constexpr int64_t kM = 96, kN = 256, kK = 256;
  const GemmF32Kernel& kernel;
  std::vector<float> x = std::vector<float>(kM * kK, 1.0F);
  std::vector<float> w = std::vector<float>(kN * kK, 1.0F);
  std::vector<float> y = std::vector<float>(kM * kN);
  testing_support::Aligned packed, scratch;

  explicit Product(const GemmF32Kernel& k)
      : kernel(k),
        packed(testing_support::aligned(4 * packed_size_f32(kN, kK, k.nr), 0)),
        scratch(testing_support::aligned(gemm_scratch_bytes(k, 1), 0)) {
    kernel.pack({w.data(), kN, kK, kK, 1}, 0, num_panels(kN, kernel.nr), weights());
  }

  float* weights() const { return reinterpret_cast<float*>(packed.get()); }

  double run() {
    const GemmF32Args args{kM, kN, kK, x.data(), kK, weights(), y.data(), kN, {}};
    gemm_f32(kernel, args, 1, scratch.get(), SerialParallelFor{1});
    return 2.0 * kM * kN * kK;
  }
};

TEST(Peak, IsNotBelowTheRateOfAProduct) {
  constexpr int kRounds = 60, kMostRounds = 20000;  // a busy machine may slow many in a row
  constexpr int64_t kIterations = 20000;
  for (const auto& gemm : gemm_f32_kernels()) {
    if (!available_isas().contains(gemm.isa)) continue;
    const PeakKernel* peak = nullptr;
    for (const PeakKernel& p : peak_kernels()) {
      if (p.kind == PeakKind::kF32 && p.isa == gemm.isa) peak = &p;
    }
    if (peak == nullptr || gemm.isa == Isa::kScalar) continue;
    Product product(*gemm.kernel);
    double best_peak = 0, best_product = 0;
    for (int i = 0; i < kRounds || (i < kMostRounds && best_peak <= 0.9 * best_product); ++i) {
      best_product = std::max(best_product, rate([&] { return product.run(); }));
      best_peak = std::max(best_peak, rate([&] { return peak->fn(kIterations); }));
    }
    EXPECT_GT(best_peak, 0.9 * best_product) << peak->name;
  }
}

TEST(Peak, CountsItsOperations) {
  for (const PeakKernel& p : peak_kernels()) {
    if (!available_isas().contains(p.isa)) continue;
    EXPECT_EQ(p.fn(0), 0.0) << p.name;
    EXPECT_GT(p.fn(10), 0.0) << p.name;
    EXPECT_EQ(p.fn(20), 2.0 * p.fn(10)) << p.name;
  }
}

}  // namespace
}  // namespace sprun::kernels
