// Every bf16 block-sparse variant against a plain product with the dense weight. Kernels for AMX
// run on this CPU's tiles or under the emulator of tests/support/amx_sigill.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/amx/tile_emu.h"
#include "kernels/bsr_spmm/bsr_spmm.h"
#include "kernels/gemm/epilogue_ref.h"
#include "kernels/simd/half.h"
#include "tests/support/draw.h"
#include "tests/support/amx_sigill.h"
#include "tests/support/aligned.h"
#include "tests/support/serial_parallel_for.h"

namespace sprun::kernels {
namespace {

using testing_support::aligned;
using testing_support::Aligned;
using testing_support::kCanary;
using testing_support::kNan;
using testing_support::kInf;
using testing_support::Size;
using testing_support::SerialParallelFor;

unsigned seed() { return testing_support::seed_or(20261125U); }

// Around 16 and 32 tokens, 16 and 32 outputs, 32 inputs of a step, blocks of 4.
const Size kSizes[] = {{1, 1, 1},     {15, 15, 31},   {16, 16, 32}, {17, 17, 33}, {32, 32, 64},
                       {33, 33, 65},  {67, 67, 131},  {31, 47, 97}, {64, 16, 5},  {20, 70, 400},
                       {3, 128, 130}, {50, 100, 259}, {2, 5, 1031}};

enum class Zeros { kAll, kOneBlock, kTenth, kHalf, kNone, kSharedColumns, kRunsOfColumns };
constexpr Zeros kZeros[] = {Zeros::kAll,  Zeros::kOneBlock,      Zeros::kTenth,        Zeros::kHalf,
                            Zeros::kNone, Zeros::kSharedColumns, Zeros::kRunsOfColumns};

// Which blocks of 16 outputs x 4 inputs hold weights.
bool is_stored(Zeros zeros, int64_t strip, int64_t block, std::mt19937& rng) {
  switch (zeros) {
    case Zeros::kAll:
      return false;
    case Zeros::kOneBlock:
      return strip == 0 && block == 0;
    case Zeros::kTenth:
      return strip != 1 && rng() % 10 == 0;  // strip 1 is empty
    case Zeros::kHalf:
      return rng() % 2 == 0;
    case Zeros::kNone:
      return true;
    // The strips of a unit agree in 10 columns and then differ.
    case Zeros::kSharedColumns:
      return block < 30 ? block % 3 == 0 : (block + strip) % 2 == 0;
    // 12 columns in a row, a gap, and the rest.
    case Zeros::kRunsOfColumns:
      return block < 12 || block > 15 + strip;
  }
  return false;
}

// One product, its own stride for every operand, canaries in all gaps.
struct Problem {
  Size size;
  int64_t ldx, ldy, ldr;
  std::vector<float> x, bias, residual;
  std::vector<uint16_t> w;  // [N, K] bf16

  Problem(const Size& s, Zeros zeros) : size(s), ldx(s.k + 3), ldy(s.n + 5), ldr(s.n + 2) {
    std::mt19937 rng(seed() + static_cast<unsigned>(zeros));
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    x.resize(static_cast<size_t>(s.m * ldx + 1), kNan);  // the gaps of X are no numbers
    for (int64_t m = 0; m < s.m; ++m) {
      for (int64_t k = 0; k < s.k; ++k) x_at(m, k) = uniform(rng);
    }
    w.resize(static_cast<size_t>(s.n * s.k), 0);
    for (int64_t n0 = 0; n0 < s.n; n0 += 16) {
      for (int64_t k0 = 0; k0 < s.k; k0 += 4) {
        if (!is_stored(zeros, n0 / 16, k0 / 4, rng)) continue;
        for (int64_t n = n0; n < std::min(n0 + 16, s.n); ++n) {
          for (int64_t k = k0; k < std::min(k0 + 4, s.k); ++k) {
            w[static_cast<size_t>(n * s.k + k)] = simd::f32_to_bf16(uniform(rng));
          }
        }
      }
    }
    for (int64_t n = 0; n < s.n; ++n) bias.push_back(uniform(rng));
    for (int64_t i = 0; i < s.m * ldr; ++i) residual.push_back(uniform(rng));
  }

  float& x_at(int64_t m, int64_t k) { return x[static_cast<size_t>(1 + m * ldx + k)]; }

  // sum_k bf16(X[m, k]) * W[n, k]; weights that are 0 do not count.
  double sum(int64_t m, int64_t n) const {
    double out = 0;
    for (int64_t k = 0; k < size.k; ++k) {
      const float weight = simd::bf16_to_f32(w[static_cast<size_t>(n * size.k + k)]);
      if (weight == 0) continue;
      const float value = x[static_cast<size_t>(1 + m * ldx + k)];
      out += static_cast<double>(simd::bf16_to_f32(simd::f32_to_bf16(value))) *
             static_cast<double>(weight);
    }
    return out;
  }

  std::vector<float> run(const BsrBf16Kernel& kernel, const Epilogue& epilogue, int workers) const {
    const NonZeros bits = NonZeros::of(WeightSource<uint16_t>{w.data(), size.n, size.k, size.k, 1});
    const BsrSize packed_size = bsr_size(kernel.layout, bits);
    const Aligned blob = aligned(packed_size.bytes(2), 0);
    auto* values = reinterpret_cast<uint16_t*>(blob.get() + packed_size.values_at());
    BsrBf16Args args;
    args.w = bsr_pack(kernel.layout, bits, packed_size, blob.get(),
                      [&](int64_t at, int64_t n, int64_t k) {
                        values[at] = w[static_cast<size_t>(n * size.k + k)];
                      });
    const SerialParallelFor parallel_for{workers};
    const int64_t slabs = num_slabs(kernel.layout, size.m);
    // Exactly as large as promised, full of NaN: what the packer leaves out must not be used.
    std::vector<uint16_t> slab_data(
        static_cast<size_t>(slabs * x_slab_elements(kernel.layout, size.k)), uint16_t{0x7fff});
    pack_x_slabs(kernel, x.data() + 1, ldx, size.m, size.k, slab_data.data(), parallel_for);
    std::vector<float> y(static_cast<size_t>(size.m * ldy + 1), kCanary);
    args.slabs = slab_data.data();
    args.gemm = {size.m, size.n, size.k, nullptr, 0, nullptr, y.data() + 1, ldy, epilogue};
    const Aligned scratch = aligned(align_scratch(kernel.scratch_bytes) * workers, 0xff);
    run_bsr(kernel, args, bsr_parts(args.w, slabs, workers), scratch.get(), parallel_for);
    EXPECT_EQ(amx::take_tile_fault(), amx::TileFault::kNone);
    return y;
  }

  void check(const KernelInfo<BsrBf16Kernel>& info, const Epilogue& epilogue, int workers) const {
    const std::vector<float> y = run(*info.kernel, epilogue, workers);
    const double bound = static_cast<double>(std::numeric_limits<float>::epsilon()) *
                             static_cast<double>(size.k + 1) * 2.0 +
                         4e-6;
    ASSERT_EQ(y[0], kCanary);
    for (int64_t m = 0; m < size.m; ++m) {
      for (int64_t n = 0; n < ldy; ++n) {
        const float got = y[static_cast<size_t>(1 + m * ldy + n)];
        float want = kCanary;
        if (n < size.n) {
          finish_ref(epilogue, m, n, epilogue.alpha * static_cast<float>(sum(m, n)), &want);
        }
        ASSERT_NEAR(static_cast<double>(got), static_cast<double>(want), n < size.n ? bound : 0.0)
            << info.name << " M " << size.m << " N " << size.n << " K " << size.k << " row " << m
            << " column " << n << " seed " << seed();
      }
    }
  }
};

// All kernels that can run here, those for tests behind them.
class BsrBf16Test : public testing::TestWithParam<size_t> {
 protected:
  const tests::AmxEmulator amx_;

  const KernelInfo<BsrBf16Kernel>& info() const {
    const size_t i = GetParam();
    const size_t listed = bsr_bf16_kernels().size();
    return i < listed ? bsr_bf16_kernels()[i] : bsr_bf16_test_kernels()[i - listed];
  }
  void SetUp() override {
    if (!available_isas().contains(info().isa)) {
      GTEST_SKIP() << unavailable_reason(info().isa, available_isas());
    }
  }
};

TEST_P(BsrBf16Test, EverySizeAndPatternIsWithinTheBound) {
  for (const Size& size : kSizes) {
    for (const Zeros zeros : kZeros) {
      ASSERT_NO_FATAL_FAILURE(Problem(size, zeros).check(info(), Epilogue(), 1));
    }
  }
}

TEST_P(BsrBf16Test, EpiloguesHaveAlphaBiasActivationAndResidual) {
  for (const Size& size : {Size{35, 50, 70}, Size{48, 64, 64}}) {
    const Problem problem(size, Zeros::kHalf);
    for (const Activation activation : {Activation::kNone, Activation::kRelu}) {
      Epilogue epilogue;
      epilogue.alpha = 0.5F;
      epilogue.activation = activation;
      problem.check(info(), epilogue, 1);
      epilogue.bias = problem.bias.data();
      problem.check(info(), epilogue, 1);
      epilogue.residual = problem.residual.data();
      epilogue.ld_residual = problem.ldr;
      problem.check(info(), epilogue, 1);
    }
  }
}

TEST_P(BsrBf16Test, PartsOfSeveralWorkersMeet) {
  for (int workers : {2, 3, 8}) {
    Problem({67, 133, 140}, Zeros::kHalf).check(info(), Epilogue(), workers);
  }
}

// Blocks that are not stored are not touched: their inputs may be anything, in tails of steps too.
TEST_P(BsrBf16Test, InputsThatNoWeightUsesMayBeNoNumbers) {
  for (const int64_t stored : {1, 7, 8, 9, 19}) {
    Problem problem({33, 48, 160}, Zeros::kAll);
    for (int64_t n = 0; n < 48; ++n) {
      for (int64_t k = 0; k < 4 * stored; ++k) {
        problem.w[static_cast<size_t>(n * 160 + 8 * (k / 4) + k % 4)] = 0x3f80;  // 1
      }
    }
    for (int64_t m = 0; m < 33; ++m) {
      for (int64_t k = 0; k < 160; ++k) {
        const bool used = k % 8 < 4 && k / 8 < stored;
        if (!used) problem.x_at(m, k) = k % 2 == 0 ? kNan : kInf;
      }
    }
    ASSERT_NO_FATAL_FAILURE(problem.check(info(), Epilogue(), 1)) << stored;
  }
}

// An infinite input reaches the outputs whose weights meet it, as infinity and not as NaN.
TEST_P(BsrBf16Test, InfiniteInputsStayInfinite) {
  Problem problem({20, 40, 50}, Zeros::kAll);
  for (int64_t n = 0; n < 40; ++n) {
    for (int64_t k = 8; k < 12; ++k) problem.w[static_cast<size_t>(n * 50 + k)] = 0x3f80;
  }
  problem.x_at(3, 9) = kInf;
  const std::vector<float> y = problem.run(*info().kernel, Epilogue(), 1);
  for (int64_t m = 0; m < 20; ++m) {
    for (int64_t n = 0; n < 40; ++n) {
      const float got = y[static_cast<size_t>(1 + m * problem.ldy + n)];
      if (m == 3) EXPECT_EQ(got, kInf) << n;
      else EXPECT_TRUE(std::isfinite(got)) << m << " " << n;
    }
  }
}

std::string kernel_name(const testing::TestParamInfo<size_t>& info) {
  const size_t listed = bsr_bf16_kernels().size();
  return std::string(info.param < listed ? bsr_bf16_kernels()[info.param].name
                                         : bsr_bf16_test_kernels()[info.param - listed].name);
}
INSTANTIATE_TEST_SUITE_P(All, BsrBf16Test,
                         testing::Range<size_t>(0, bsr_bf16_kernels().size() +
                                                       bsr_bf16_test_kernels().size()),
                         kernel_name);

}  // namespace
}  // namespace sprun::kernels
