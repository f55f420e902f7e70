// Every block-sparse variant of this machine against a plain product with the dense weight.
#include "kernels/bsr_spmm/bsr_spmm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/gemm/epilogue_ref.h"
#include "tests/support/aligned.h"
#include "tests/support/draw.h"
#include "tests/support/amx_sigill.h"
#include "tests/support/serial_parallel_for.h"

namespace sprun::kernels {
namespace {

using testing_support::kCanary;
using testing_support::Size;
using testing_support::aligned;
using testing_support::Aligned;
using testing_support::SerialParallelFor;

unsigned seed() { return testing_support::seed_or(20261123U); }

// Around 16 and 64 tokens, units of 16 and 64 outputs, quads, K blocks of 768, 64-bit words.
const Size kSizes[] = {{1, 1, 1},     {1, 17, 5},    {3, 16, 64},  {15, 5, 67}, {16, 32, 128},
                       {17, 64, 130}, {33, 65, 31},  {49, 7, 129}, {64, 96, 97}, {65, 100, 385},
                       {131, 37, 53}, {24, 70, 1541}, {2, 160, 3}};
const double kDensities[] = {0.0, 0.1, 0.5, 1.0};

// A weight whose zeros are blocks of the pattern; density < 0 leaves one block, and one block row
// always stays empty.
std::vector<int8_t> random_weight(const Size& s, BlockShape block, double density,
                                  std::mt19937& rng) {
  std::vector<int8_t> w(static_cast<size_t>(s.n * s.k), 0);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::uniform_int_distribution<int> value(-128, 127);
  for (int64_t n0 = 0; n0 < s.n; n0 += block.rows) {
    if (n0 == block.rows) continue;
    for (int64_t k0 = 0; k0 < s.k; k0 += block.cols) {
      if (uniform(rng) >= density) continue;
      for (int64_t n = n0; n < std::min(s.n, n0 + block.rows); ++n) {
        for (int64_t k = k0; k < std::min(s.k, k0 + block.cols); ++k) {
          // Extremes are common, so that a saturating kernel shows.
          const int v = value(rng);
          w[static_cast<size_t>(n * s.k + k)] =
              static_cast<int8_t>(v > 64 ? 127 : v < -64 ? -128 : v);
        }
      }
    }
  }
  return w;
}

// Makes each pair of weights that a bounded form adds in 16 bits as large as it may be: in a 4x1 block
// any two weights of an output can meet.
void bound_pairs(std::vector<int8_t>& w, BlockShape block) {
  constexpr int8_t kPairs[][2] = {{127, 1}, {64, 64}, {-128, 0}, {-64, -64}, {-128, 127}, {1, 127}};
  for (size_t i = 0; i < w.size(); ++i) {
    if (w[i] == 0) continue;
    if (block.cols == 1) w[i] = w[i] > 0 ? 64 : -64;
    else w[i] = kPairs[i / 2 % 6][i % 2];
  }
}

enum class Zero { kNone, kTensor, kRow };

struct Options {
  Zero zero = Zero::kTensor;
  bool s32 = false, residual = true;
  Activation activation = Activation::kNone;
  int64_t w_scale_stride = 1;
  bool bounded = false;  // bound_pairs(), and X is 255 mostly
};

class U8S8Problem {
 public:
  U8S8Problem(const Size& s, BlockShape block, double density, const Options& options)
      : s_(s), options_(options), ldx_(s.k + 3), ldy_(s.n + 5), ldr_(s.n + 2) {
    std::mt19937 rng(seed() + static_cast<unsigned>(s.m * 131 + s.n * 17 + s.k));
    w_ = random_weight(s, block, density, rng);
    if (options.bounded) bound_pairs(w_, block);
    std::uniform_int_distribution<int> byte(0, 255);
    for (int64_t i = 0; i < s.m * ldx_ + 1; ++i) {
      const int v = byte(rng);
      x_.push_back(static_cast<uint8_t>(v > (options.bounded ? 20 : 160) ? 255 : v));
    }
    std::uniform_real_distribution<float> uniform(0.001F, 1.0F);
    for (int64_t m = 0; m < s.m; ++m) {
      x_zero_.push_back(byte(rng));
      x_scale_.push_back(uniform(rng));
    }
    for (int64_t n = 0; n < s.n; ++n) {
      w_scale_.push_back(uniform(rng));
      bias_.push_back(uniform(rng));
    }
    for (int64_t i = 0; i < s.m * ldr_; ++i) residual_.push_back(uniform(rng));
    w_sum_.assign(static_cast<size_t>((s.n + 63) / 64 * 64), 0);
    for (int64_t n = 0; n < s.n; ++n) {
      for (int64_t k = 0; k < s.k; ++k) {
        w_sum_[static_cast<size_t>(n)] += w_[static_cast<size_t>(n * s.k + k)];
      }
    }
  }

  // Everything but the weights; Y goes to y or y_s32.
  GemmU8S8Args args(float* y, int32_t* y_s32) const {
    GemmU8S8Args a;
    a.m = s_.m, a.n = s_.n, a.k = s_.k;
    a.x = x_.data() + 1, a.ldx = ldx_;
    a.w_sum = w_sum_.data();
    if (options_.zero != Zero::kNone) a.x_zero_point = x_zero_.data();
    a.x_zero_point_stride = options_.zero == Zero::kRow ? 1 : 0;
    a.x_scale = x_scale_.data(), a.x_scale_stride = 1;
    a.w_scale = w_scale_.data(), a.w_scale_stride = options_.w_scale_stride;
    a.ldy = ldy_;
    if (options_.s32) a.y_s32 = y_s32;
    else a.y = y;
    a.epilogue = {.bias = bias_.data(), .activation = options_.activation};
    if (options_.residual) a.epilogue.residual = residual_.data(), a.epilogue.ld_residual = ldr_;
    return a;
  }

  void run_plain(const GemmU8S8Args& a) const {
    for (int64_t m = 0; m < s_.m; ++m) {
      const int32_t zero =
          a.x_zero_point == nullptr ? 0 : a.x_zero_point[m * a.x_zero_point_stride];
      for (int64_t n = 0; n < s_.n; ++n) {
        int32_t sum = 0;
        for (int64_t k = 0; k < s_.k; ++k) {
          sum += (a.x[m * ldx_ + k] - zero) * w_[static_cast<size_t>(n * s_.k + k)];
        }
        finish_u8s8_ref(a, m, n, sum);
      }
    }
  }

  void run_kernel(const BsrU8S8Kernel& kernel, const GemmU8S8Args& a, int workers) const {
    const WeightSource<int8_t> source{w_.data(), s_.n, s_.k, s_.k, 1};
    const NonZeros bits = NonZeros::of(source);
    const BsrSize size = bsr_size(kernel.layout, bits);
    const Aligned blob = aligned(size.bytes(1), 0);
    std::memset(blob.get(), 0, static_cast<size_t>(size.bytes(1)));
    int8_t* values = reinterpret_cast<int8_t*>(blob.get()) + size.values_at();
    BsrU8S8Args args;
    args.gemm = a;
    args.w = bsr_pack(kernel.layout, bits, size, blob.get(), [&](int64_t at, int64_t n, int64_t k) {
      values[at] = w_[static_cast<size_t>(n * s_.k + k)];
    });
    args.w.pairs_fit = bsr_pairs_fit(values, size.groups * size.group_values);
    EXPECT_TRUE(args.w.pairs_fit || !options_.bounded);
    const SerialParallelFor parallel_for{workers};
    const int64_t slabs = num_slabs(kernel.layout, s_.m);
    // Exactly as large as promised, so that AddressSanitizer sees a kernel that reads on.
    std::vector<uint8_t> packed_x(static_cast<size_t>(slabs * x_slab_elements(kernel.layout, s_.k)));
    if (kernel.pack_x != nullptr) {
      pack_x_slabs(kernel, a.x, a.ldx, s_.m, s_.k, packed_x.data(), parallel_for);
      args.slabs = packed_x.data();
    }
    const Aligned scratch = aligned(align_scratch(kernel.scratch_bytes) * workers, 0);
    run_bsr(kernel, args, bsr_parts(args.w, slabs, workers), scratch.get(), parallel_for);
  }

  int64_t ldy() const { return ldy_; }

 private:
  Size s_;
  Options options_;
  int64_t ldx_, ldy_, ldr_;
  std::vector<int8_t> w_;
  std::vector<uint8_t> x_;
  std::vector<int32_t> x_zero_, w_sum_;
  std::vector<float> x_scale_, w_scale_, bias_, residual_;
};

class BsrU8S8Test : public testing::TestWithParam<size_t> {
 protected:
  const tests::AmxEmulator amx_;  // kernels for AMX run on every CPU with AVX-512 VNNI

  const KernelInfo<BsrU8S8Kernel>& info() const { return bsr_u8s8_kernels()[GetParam()]; }
  void SetUp() override {
    if (!available_isas().contains(info().isa)) {
      GTEST_SKIP() << unavailable_reason(info().isa, available_isas());
    }
  }

  void check(const Size& s, double density, const Options& options, int workers) const {
    const BsrU8S8Kernel& kernel = *info().kernel;
    const U8S8Problem problem(s, kernel.layout.block, density, options);
    const auto size = static_cast<size_t>(s.m * problem.ldy());
    std::vector<float> want(size, kCanary), got(size, kCanary);
    std::vector<int32_t> want_s32(size, 77), got_s32(size, 77);
    problem.run_plain(problem.args(want.data(), want_s32.data()));
    problem.run_kernel(kernel, problem.args(got.data(), got_s32.data()), workers);
    ASSERT_EQ(want_s32, got_s32) << s.m << " x " << s.n << " x " << s.k << " density " << density;
    for (size_t i = 0; i < size; ++i) {
      // Integers are exact; scales, bias and activation may round once or twice differently.
      const float bound = 2e-6F * (1.0F + std::fabs(want[i])) +
                          (options.activation == Activation::kNone ? 0.0F : 1e-5F);
      ASSERT_NEAR(want[i], got[i], bound * 4) << s.m << " x " << s.n << " x " << s.k << " density "
                                              << density << " at " << i << " seed " << seed();
    }
  }
};

TEST_P(BsrU8S8Test, IntegersEqualThePlainProduct) {
  for (const Size& s : kSizes) {
    for (double density : kDensities) {
      for (Zero zero : {Zero::kNone, Zero::kTensor, Zero::kRow}) {
        check(s, density, {.zero = zero, .s32 = true}, 1);
      }
    }
  }
}

TEST_P(BsrU8S8Test, BoundedWeightsAreExactToo) {
  for (Size s : kSizes) {
    s.k += s.k % 2;  // pairs do not reach over the end of a row
    for (double density : kDensities) check(s, density, {.s32 = true, .bounded = true}, 1);
  }
  check({65, 100, 98}, 0.3, {.zero = Zero::kRow, .bounded = true}, 3);
}

// Runs of more weights than are widened at once.
TEST_P(BsrU8S8Test, LongRunsAreExact) {
  for (bool bounded : {false, true}) check({37, 17, 4500}, 0.7, {.s32 = true, .bounded = bounded}, 1);
}

TEST_P(BsrU8S8Test, FloatsHaveScalesBiasAndResidual) {
  for (const Size& s : kSizes) {
    check(s, 0.3, {.zero = Zero::kTensor}, 1);
    check(s, 0.3, {.zero = Zero::kRow, .residual = false}, 1);
    check(s, 0.3, {.activation = Activation::kGeluErf, .w_scale_stride = 0}, 1);
  }
}

TEST_P(BsrU8S8Test, PartsOfWorkersCoverTheProduct) {
  for (int workers : {2, 3, 8}) {
    check({65, 100, 97}, 0.3, {.s32 = true}, workers);
    check({200, 20, 33}, 0.3, {.s32 = true}, workers);
  }
}

// Random zeros fit no pattern: blocks are kept whole, the product stays right.
TEST_P(BsrU8S8Test, UnstructuredZerosAreCorrectToo) {
  const BsrU8S8Kernel& kernel = *info().kernel;
  const U8S8Problem problem({37, 50, 77}, kBlock1x1, 0.2, {.s32 = true});
  std::vector<int32_t> want(static_cast<size_t>(37 * problem.ldy())), got(want.size());
  problem.run_plain(problem.args(nullptr, want.data()));
  problem.run_kernel(kernel, problem.args(nullptr, got.data()), 1);
  EXPECT_EQ(want, got);
}

std::string kernel_name(const testing::TestParamInfo<size_t>& info) {
  return std::string(bsr_u8s8_kernels()[info.param].name);
}
INSTANTIATE_TEST_SUITE_P(All, BsrU8S8Test, testing::Range<size_t>(0, bsr_u8s8_kernels().size()),
                         kernel_name);

TEST(NonZeros, CountsBlocksOfEveryPattern) {
  const Size s{50, 0, 70};
  std::mt19937 rng(seed());
  std::vector<int8_t> w(static_cast<size_t>(s.m * s.k));
  for (int8_t& v : w) v = static_cast<int8_t>(rng() % 10 == 0 ? 3 : 0);
  const NonZeros bits = NonZeros::of(WeightSource<int8_t>{w.data(), s.m, s.k, s.k, 1});
  for (BlockShape b : {kBlock1x1, kBlock4x1, kBlock1x4, kBlock4x4, kBlock16x1, kBlock16x4,
                       kBlock32x32}) {
    int64_t count = 0;
    for (int64_t n0 = 0; n0 < s.m; n0 += b.rows) {
      for (int64_t k0 = 0; k0 < s.k; k0 += b.cols) {
        bool any = false;
        for (int64_t n = n0; n < std::min(s.m, n0 + b.rows); ++n) {
          for (int64_t k = k0; k < std::min(s.k, k0 + b.cols); ++k) {
            any = any || w[static_cast<size_t>(n * s.k + k)] != 0;
          }
        }
        count += any;
      }
    }
    EXPECT_EQ(bits.count(b), count) << b.rows << "x" << b.cols;
    std::vector<uint64_t> words(static_cast<size_t>(bits.row_words()));
    int64_t counted = 0;
    for (int64_t r = 0; r * b.rows < s.m; ++r) {
      bits.block_bits(b, r, words);
      for (uint64_t word : words) counted += std::popcount(word);
    }
    EXPECT_EQ(counted, count) << b.rows << "x" << b.cols;
  }
}

TEST(NonZeros, StridesZeroPointsAndNegativeZero) {
  const uint8_t w[] = {128, 1, 128, 7, 128, 128};  // [K = 3, N = 2]
  const int32_t zero = 128;
  const NonZeros bits = NonZeros::of(WeightSource<uint8_t>{w, 2, 3, 1, 2}, &zero, 0);
  EXPECT_EQ(bits.row(0)[0], 0U);
  EXPECT_EQ(bits.row(1)[0], 3U);
  const float f[] = {0.0F, -0.0F, 1e-40F, std::nanf("")};
  EXPECT_EQ(NonZeros::of(WeightSource<float>{f, 1, 4, 4, 1}).row(0)[0], 12U);
  const uint16_t h[] = {0x8000, 0, 1};
  EXPECT_EQ(NonZeros::of(WeightSource<uint16_t>{h, 1, 3, 3, 1}).row(0)[0], 4U);
}

TEST(NonZeros, KnowsNOfM) {
  std::vector<int8_t> w(128, 0);
  for (size_t i = 0; i < w.size(); i += 4) w[i] = w[i + 3] = 1;
  NonZeros bits = NonZeros::of(WeightSource<int8_t>{w.data(), 2, 64, 64, 1});
  EXPECT_TRUE(bits.is_n_of_m(2, 4));
  EXPECT_TRUE(bits.is_n_of_m(4, 8));
  EXPECT_FALSE(bits.is_n_of_m(1, 4));
}

TEST(BsrPack, MemoryOfA4x1LayerAt90PercentStaysUnderItsPromise) {
  const Size s{0, 768, 768};
  std::mt19937 rng(seed());
  for (const auto& [block, limit] : {std::pair{kBlock4x1, 0.17}, std::pair{kBlock16x4, 0.11}}) {
    const std::vector<int8_t> w = random_weight(s, block, 0.1, rng);
    const NonZeros bits = NonZeros::of(WeightSource<int8_t>{w.data(), s.n, s.k, s.k, 1});
    for (const auto& info : bsr_u8s8_kernels()) {
      if (info.kernel->layout.block != block) continue;
      const double part = static_cast<double>(bsr_size(info.kernel->layout, bits).bytes(1)) /
                          static_cast<double>(s.n * s.k);
      EXPECT_LE(part, limit) << info.name;
    }
  }
}

// 255 * 128 is the most that a pair may reach: 255 * 129 leaves 16 bits on both sides.
TEST(BsrPack, PairsThatFitAreProvedAndNoOthers) {
  const auto fit = [](std::vector<int8_t> values) {
    return bsr_pairs_fit(values.data(), static_cast<int64_t>(values.size()));
  };
  EXPECT_TRUE(fit({}));
  EXPECT_TRUE(fit({64, 64, -64, -64, 127, 1, -128, 0, -128, 127, 0, 0}));
  EXPECT_TRUE(fit({1, 127, 127, 1}));  // the second and third weight are of two pairs
  EXPECT_FALSE(fit({1, 1, 65, 64}));
  EXPECT_FALSE(fit({-65, -64}));
  EXPECT_FALSE(fit({127, 2}));
  EXPECT_FALSE(fit({-1, -128, 0, 0}));
  EXPECT_FALSE(fit({127, 127}));
}

TEST(BsrParts, SplitByStoredGroups) {
  // Unit 0 holds nearly everything: it must not share a part with all the others.
  std::vector<BsrUnit> units = {{0, 0}};
  for (int u = 0; u < 32; ++u) units.push_back({u + 1, 1000 + 10 * u});
  const BsrWeights w{units.data(), nullptr, nullptr, nullptr, 32};
  const BsrParts parts = bsr_parts(w, 1, 2);
  EXPECT_EQ(parts.unit_begin[1], 1);
  EXPECT_EQ(parts.unit_begin.back(), 32);
  EXPECT_GT(parts.count(), 2);
}

}  // namespace
}  // namespace sprun::kernels
