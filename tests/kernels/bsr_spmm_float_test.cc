// Every f32 and bf16 block-sparse variant of this machine against a plain product with the dense
// weight, summed in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/bsr_spmm/bsr_spmm.h"
#include "kernels/gemm/epilogue_ref.h"
#include "kernels/simd/half.h"
#include "tests/support/aligned.h"
#include "tests/support/draw.h"
#include "tests/support/amx_sigill.h"
#include "tests/support/serial_parallel_for.h"

namespace sprun::kernels {
namespace {

using testing_support::kCanary;
using testing_support::kNan;
using testing_support::kInf;
using testing_support::Size;
using testing_support::aligned;
using testing_support::Aligned;
using testing_support::SerialParallelFor;

unsigned seed() { return testing_support::seed_or(20261127U); }

// Around 16, 32 and 64 tokens, units of 16 and 64 outputs, batches of 128, K blocks of 128, pairs
// and blocks of 4 inputs; rows of 512 outputs are a multiple of 2 KiB.
const Size kSizes[] = {{1, 1, 1},      {1, 17, 5},    {3, 16, 64},  {15, 5, 67},   {16, 32, 128},
                       {17, 64, 130},  {33, 65, 31},  {49, 7, 129}, {64, 96, 97},  {65, 100, 385},
                       {131, 37, 53},  {24, 70, 769}, {2, 128, 3},  {50, 100, 259}, {40, 145, 35}};
const double kDensities[] = {0.0, 0.1, 0.5, 1.0};

// What a dtype keeps of a weight, and how it sees an input.
struct TypeF32 {
  using Kernel = BsrF32Kernel;
  using Args = BsrF32Args;
  using Value = float;
  static float value(float w) { return w; }
  static float seen(float x) { return x; }
};
struct TypeBf16 {
  using Kernel = BsrBf16Kernel;
  using Args = BsrBf16Args;
  using Value = uint16_t;
  static uint16_t value(float w) { return simd::f32_to_bf16(w); }
  static float seen(float x) { return simd::bf16_to_f32(simd::f32_to_bf16(x)); }
};

// One product, its own stride for every operand, unaligned bases, canaries in all gaps.
struct Problem {
  Size size;
  int64_t ldx, ldy, ldr;
  BlockShape block;
  std::vector<float> x, w, bias, residual;  // w: [N, K], of values that bf16 holds exactly

  // Block row 1 stays empty.
  Problem(const Size& s, BlockShape b, double density, int64_t y_gap = 5)
      : size(s), ldx(s.k + 3), ldy(s.n + y_gap), ldr(s.n + 2), block(b) {
    std::mt19937 rng(seed() + static_cast<unsigned>(s.m * 131 + s.n * 17 + s.k));
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    x.resize(static_cast<size_t>(s.m * ldx + 1), kNan);
    for (int64_t m = 0; m < s.m; ++m) {
      for (int64_t k = 0; k < s.k; ++k) x_at(m, k) = uniform(rng);
    }
    w.resize(static_cast<size_t>(s.n * s.k), 0.0F);
    std::uniform_real_distribution<double> chance(0, 1);
    for (int64_t n0 = 0; n0 < s.n; n0 += b.rows) {
      for (int64_t k0 = 0; k0 < s.k; k0 += b.cols) {
        if (n0 == b.rows || chance(rng) >= density) continue;
        for (int64_t n = n0; n < std::min(s.n, n0 + b.rows); ++n) {
          for (int64_t k = k0; k < std::min(s.k, k0 + b.cols); ++k) {
            w_at(n, k) = TypeBf16::seen(uniform(rng));
          }
        }
      }
    }
    for (int64_t n = 0; n < s.n; ++n) bias.push_back(uniform(rng));
    for (int64_t i = 0; i < s.m * ldr; ++i) residual.push_back(uniform(rng));
  }

  float& x_at(int64_t m, int64_t k) { return x[static_cast<size_t>(1 + m * ldx + k)]; }
  float& w_at(int64_t n, int64_t k) { return w[static_cast<size_t>(n * size.k + k)]; }

  bool is_stored(BlockShape b, int64_t n, int64_t k) {
    for (int64_t i = n / b.rows * b.rows; i < std::min(size.n, (n / b.rows + 1) * b.rows); ++i) {
      for (int64_t j = k / b.cols * b.cols; j < std::min(size.k, (k / b.cols + 1) * b.cols); ++j) {
        if (w_at(i, j) != 0) return true;
      }
    }
    return false;
  }

  // Y in rows of N; blocks of pattern b without a weight are skipped, their inputs may be anything.
  template <class Type>
  std::vector<double> sums(BlockShape b) {
    std::vector<double> out;
    for (int64_t n = 0; n < size.n; ++n) {
      std::vector<int64_t> stored;
      for (int64_t k = 0; k < size.k; ++k) {
        if (is_stored(b, n, k)) stored.push_back(k);
      }
      for (int64_t m = 0; m < size.m; ++m) {
        double sum = 0;
        for (int64_t k : stored) {
          sum += static_cast<double>(Type::seen(x_at(m, k))) * static_cast<double>(w_at(n, k));
        }
        out.push_back(sum);
      }
    }
    return out;  // [N, M]
  }

  template <class Type>
  std::vector<float> run(const typename Type::Kernel& kernel, const Epilogue& epilogue,
                         int workers) const {
    const NonZeros bits = NonZeros::of(WeightSource<float>{w.data(), size.n, size.k, size.k, 1});
    const BsrSize packed = bsr_size(kernel.layout, bits);
    constexpr int64_t kBytes = sizeof(typename Type::Value);
    const Aligned blob = aligned(packed.bytes(kBytes), 0);
    std::memset(blob.get(), 0, static_cast<size_t>(packed.bytes(kBytes)));
    auto* values = reinterpret_cast<typename Type::Value*>(static_cast<char*>(blob.get()) +
                                                           packed.values_at());
    typename Type::Args args;
    const auto place = [&](int64_t at, int64_t n, int64_t k) {
      values[at] = Type::value(w[static_cast<size_t>(n * size.k + k)]);
    };
    args.w = bsr_pack(kernel.layout, bits, packed, blob.get(), place);
    const SerialParallelFor parallel_for{workers};
    const int64_t slabs = num_slabs(kernel.layout, size.m);
    // Exactly as large as promised, full of NaN: what the packer leaves out must not be used.
    typename Type::Value nan;
    std::memset(&nan, 0xff, sizeof(nan));
    std::vector<typename Type::Value> slab_data(
        static_cast<size_t>(slabs * x_slab_elements(kernel.layout, size.k)), nan);
    pack_x_slabs(kernel, x.data() + 1, ldx, size.m, size.k, slab_data.data(), parallel_for);
    args.slabs = slab_data.data();
    std::vector<float> y(static_cast<size_t>(size.m * ldy + 1), kCanary);
    args.gemm = {size.m, size.n, size.k, nullptr, 0, nullptr, y.data() + 1, ldy, epilogue};
    const int64_t scratch_bytes = align_scratch(kernel.scratch_bytes) * workers;
    const Aligned scratch = aligned(scratch_bytes, 0);
    std::memset(scratch.get(), 0xff, static_cast<size_t>(scratch_bytes));
    run_bsr(kernel, args, bsr_parts(args.w, slabs, workers), scratch.get(), parallel_for);
    return y;
  }
};

// A kernel of either dtype behind one face.
struct Case {
  std::string name;
  Isa isa;
  BlockShape block;
  std::function<std::vector<float>(const Problem&, const Epilogue&, int workers)> run;
  std::function<std::vector<double>(Problem&)> sums;
};

template <class Type>
void add_cases(std::span<const KernelInfo<typename Type::Kernel>> list, std::vector<Case>& out) {
  for (const auto& info : list) {
    const auto* kernel = info.kernel;
    out.push_back({std::string(info.name), info.isa, kernel->layout.block,
                   [kernel](const Problem& p, const Epilogue& e, int workers) {
                     return p.run<Type>(*kernel, e, workers);
                   },
                   [kernel](Problem& p) { return p.sums<Type>(kernel->layout.block); }});
  }
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> out;
    add_cases<TypeF32>(bsr_f32_kernels(), out);
    add_cases<TypeBf16>(bsr_bf16_kernels(), out);
    return out;
  }();
  return all;
}

class BsrFloatTest : public testing::TestWithParam<size_t> {
 protected:
  const tests::AmxEmulator amx_;

  const Case& kernel() const { return cases()[GetParam()]; }
  void SetUp() override {
    if (!available_isas().contains(kernel().isa)) {
      GTEST_SKIP() << unavailable_reason(kernel().isa, available_isas());
    }
  }

  void check(Problem& p, const Epilogue& epilogue, int workers) const {
    const std::vector<float> y = kernel().run(p, epilogue, workers);
    const std::vector<double> sums = kernel().sums(p);
    // |x|, |w| <= 1; the second part is for the epilogue.
    const double bound = static_cast<double>(std::numeric_limits<float>::epsilon()) *
                             static_cast<double>(p.size.k + 1) * 2.0 +
                         (epilogue.activation == Activation::kNone ? 1e-6 : 1e-5);
    ASSERT_EQ(y[0], kCanary);
    for (int64_t m = 0; m < p.size.m; ++m) {
      for (int64_t n = 0; n < p.ldy; ++n) {
        const float got = y[static_cast<size_t>(1 + m * p.ldy + n)];
        float want = kCanary;
        if (n < p.size.n) {
          const auto sum = static_cast<float>(sums[static_cast<size_t>(n * p.size.m + m)]);
          finish_ref(epilogue, m, n, epilogue.alpha * sum, &want);
        }
        if (std::isfinite(want)) {
          ASSERT_NEAR(got, want, n < p.size.n ? bound : 0.0) << where(p, m, n);
        } else {
          ASSERT_TRUE(std::isnan(want) ? std::isnan(got) : got == want)
              << where(p, m, n) << " got " << got << " instead of " << want;
        }
      }
    }
  }

 private:
  static std::string where(const Problem& p, int64_t m, int64_t n) {
    return "M " + std::to_string(p.size.m) + " N " + std::to_string(p.size.n) + " K " +
           std::to_string(p.size.k) + " row " + std::to_string(m) + " column " + std::to_string(n) +
           " seed " + std::to_string(seed());
  }
};

TEST_P(BsrFloatTest, EverySizeAndDensityIsWithinTheBound) {
  for (const Size& size : kSizes) {
    for (double density : kDensities) {
      Problem p(size, kernel().block, density);
      ASSERT_NO_FATAL_FAILURE(check(p, Epilogue(), 1)) << density;
    }
  }
}

TEST_P(BsrFloatTest, EpiloguesHaveAlphaBiasActivationAndResidual) {
  // ldy 512: rows that collide in the cache are written in another order.
  for (const auto& [size, y_gap] : {std::pair{Size{35, 50, 70}, 5}, {Size{70, 150, 64}, 362}}) {
    Problem p(size, kernel().block, 0.3, y_gap);
    for (const Activation activation :
         {Activation::kNone, Activation::kRelu, Activation::kGeluErf}) {
      Epilogue epilogue;
      epilogue.alpha = 0.5F;
      epilogue.activation = activation;
      ASSERT_NO_FATAL_FAILURE(check(p, epilogue, 1));
      epilogue.bias = p.bias.data();
      ASSERT_NO_FATAL_FAILURE(check(p, epilogue, 1));
      epilogue.residual = p.residual.data();
      epilogue.ld_residual = p.ldr;
      ASSERT_NO_FATAL_FAILURE(check(p, epilogue, 1));
    }
  }
}

TEST_P(BsrFloatTest, PartsOfSeveralWorkersMeet) {
  for (int workers : {2, 3, 8}) {
    for (const int64_t y_gap : {3, 379}) {
      Problem p({67, 133, 140}, kernel().block, 0.3, y_gap);
      ASSERT_NO_FATAL_FAILURE(check(p, Epilogue(), workers));
    }
    Problem p({200, 20, 33}, kernel().block, 0.3);
    ASSERT_NO_FATAL_FAILURE(check(p, Epilogue(), workers));
  }
}

// Random zeros fit no pattern: blocks are kept whole, the product stays right.
TEST_P(BsrFloatTest, UnstructuredZerosAreCorrectToo) {
  Problem p({37, 50, 77}, kBlock1x1, 0.2);
  ASSERT_NO_FATAL_FAILURE(check(p, Epilogue(), 1));
}

// Inputs that no stored block uses are not looked at.
TEST_P(BsrFloatTest, InputsThatNoWeightUsesMayBeNoNumbers) {
  for (const int64_t stored : {1, 2, 7, 8, 9, 19}) {
    Problem p({33, 48, 160}, kernel().block, 0.0);
    for (int64_t n = 0; n < p.size.n; ++n) {
      for (int64_t i = 0; i < 4 * stored; ++i) p.w_at(n, 8 * (i / 4) + i % 4) = 1.0F;
    }
    for (int64_t m = 0; m < p.size.m; ++m) {
      for (int64_t k = 0; k < p.size.k; ++k) {
        if (k % 8 >= 4 || k / 8 >= stored) p.x_at(m, k) = k % 2 == 0 ? kNan : kInf;
      }
    }
    ASSERT_NO_FATAL_FAILURE(check(p, Epilogue(), 1)) << stored;
  }
}

// What is stored behaves as in a dense product: an infinity stays one, NaN spreads over its row.
TEST_P(BsrFloatTest, InfinityAndNanActAsInADenseProduct) {
  for (const Size& size : kSizes) {
    for (double density : {0.1, 0.6}) {
      for (float special : {kInf, -kInf, kNan}) {
        Problem p(size, kernel().block, density);
        for (int64_t m = 0; m < size.m; m += 3) p.x_at(m, (7 * m + size.k - 1) % size.k) = special;
        ASSERT_NO_FATAL_FAILURE(check(p, Epilogue(), 1)) << density;
      }
    }
  }
}

std::string kernel_name(const testing::TestParamInfo<size_t>& info) {
  return cases()[info.param].name;
}
INSTANTIATE_TEST_SUITE_P(All, BsrFloatTest, testing::Range<size_t>(0, cases().size()),
                         kernel_name);

}  // namespace
}  // namespace sprun::kernels
