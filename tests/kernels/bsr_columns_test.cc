// Products whose Y lies as columns against the same product with rows of Y: values bit by bit, their range, their codes,
// and the slabs that the next product would have made of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/bsr_spmm/bsr_spmm.h"
#include "kernels/gemm/quantize_rows.h"
#include "tests/support/aligned.h"
#include "tests/support/draw.h"
#include "tests/support/serial_parallel_for.h"

namespace sprun::kernels {
namespace {

using testing_support::aligned;
using testing_support::Aligned;
using testing_support::SerialParallelFor;
using testing_support::Size;

constexpr float kUntouched = -12345.0F;

unsigned seed() { return testing_support::seed_or(20261124U); }

// One product with everything it needs; rows and columns of Y come from the same packed operands.
class Product {
 public:
  Product(const BsrU8S8Kernel& kernel, const Size& s, Activation activation, int64_t w_scale_stride)
      : kernel_(kernel), s_(s) {
    std::mt19937 rng(seed() + static_cast<unsigned>(s.m * 7919 + s.n * 31 + s.k));
    std::uniform_int_distribution<int> byte(0, 255), weight(-127, 127), chance(0, 4);
    std::uniform_real_distribution<float> uniform(0.001F, 0.02F);
    for (int64_t i = 0; i < s.m * s.k; ++i) x_.push_back(static_cast<uint8_t>(byte(rng)));
    for (int64_t n = 0; n < s.n; ++n) {
      for (int64_t k = 0; k < s.k; ++k) w_.push_back(static_cast<int8_t>(chance(rng) == 0 ? weight(rng) : 0));
      scale_.push_back(uniform(rng));
      bias_.push_back(uniform(rng) - 0.01F);
    }
    sums_.assign(static_cast<size_t>((s.n + 63) / 64 * 64), 0);
    for (int64_t i = 0; i < s.n * s.k; ++i) sums_[static_cast<size_t>(i / s.k)] += w_[static_cast<size_t>(i)];
    pack();
    args_.gemm = {.m = s.m, .n = s.n, .k = s.k, .w_sum = sums_.data(), .x_zero_point = &zero_, .x_scale = &x_scale_,
                  .w_scale = scale_.data(), .w_scale_stride = w_scale_stride,
                  .epilogue = {.bias = bias_.data(), .activation = activation}};
  }

  std::vector<float> rows(int workers) {
    std::vector<float> y(static_cast<size_t>(s_.m * s_.n));
    args_.gemm.y = y.data();
    args_.gemm.ldy = s_.n;
    const Aligned scratch = aligned(align_scratch(kernel_.scratch_bytes) * workers, 0);
    run_bsr(kernel_, args_, bsr_parts(args_.w, slabs(), workers), scratch.get(), SerialParallelFor{workers});
    return y;
  }

  // Parts one after the other, each with its own range.
  void columns(BsrColumns y, int parts) {
    const Aligned scratch = aligned(align_scratch(kernel_.scratch_bytes), 0);
    const BsrParts split = bsr_parts(args_.w, slabs(), parts);
    for (int64_t p = 0; p < split.count(); ++p) kernel_.run_columns(args_, y, split.range(p), scratch.get());
  }

  int64_t slabs() const { return num_slabs(kernel_.layout, s_.m); }

 private:
  void pack() {
    const NonZeros bits = NonZeros::of(WeightSource<int8_t>{w_.data(), s_.n, s_.k, s_.k, 1});
    const BsrSize size = bsr_size(kernel_.layout, bits);
    blob_ = aligned(size.bytes(1), 0);
    std::memset(blob_.get(), 0, static_cast<size_t>(size.bytes(1)));
    int8_t* values = reinterpret_cast<int8_t*>(blob_.get()) + size.values_at();
    args_.w = bsr_pack(kernel_.layout, bits, size, blob_.get(), [&](int64_t at, int64_t n, int64_t k) {
      values[at] = w_[static_cast<size_t>(n * s_.k + k)];
    });
    packed_x_.resize(static_cast<size_t>(slabs() * x_slab_elements(kernel_.layout, s_.k)));
    pack_x_slabs(kernel_, x_.data(), s_.k, s_.m, s_.k, packed_x_.data(), SerialParallelFor{1});
    args_.slabs = packed_x_.data();
  }

  const BsrU8S8Kernel& kernel_;
  Size s_;
  std::vector<uint8_t> x_, packed_x_;
  std::vector<int8_t> w_;
  std::vector<float> scale_, bias_;
  std::vector<int32_t> sums_;
  int32_t zero_ = 119;
  float x_scale_ = 0.03F;
  Aligned blob_;
  BsrU8S8Args args_;
};

const Size kSizes[] = {{1, 1, 1}, {16, 16, 64}, {40, 37, 53}, {64, 33, 130}, {65, 16, 9}, {97, 70, 31}, {131, 130, 77}};

class BsrColumnsTest : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    const auto& info = bsr_u8s8_kernels()[GetParam()];
    if (info.kernel->run_columns == nullptr) GTEST_SKIP() << "X of this pattern does not lie as columns";
    if (!available_isas().contains(info.isa)) GTEST_SKIP() << unavailable_reason(info.isa, available_isas());
  }
  const BsrU8S8Kernel& kernel() const { return *bsr_u8s8_kernels()[GetParam()].kernel; }
};

constexpr Activation kActivations[] = {Activation::kNone,     Activation::kRelu, Activation::kGeluErf,   Activation::kGeluErfCodes,
                                       Activation::kGeluTanh, Activation::kSilu, Activation::kQuickGelu, Activation::kTanh,
                                       Activation::kSigmoid};

TEST_P(BsrColumnsTest, FloatsAndTheirRangeAreThoseOfRows) {
  for (const Size& s : kSizes) {
    for (Activation activation : kActivations) {
      Product product(kernel(), s, activation, s.n % 2);
      const std::vector<float> want = product.rows(1);
      std::vector<float> got(static_cast<size_t>(product.slabs() * s.n * 64 + 1), kUntouched);
      float range[3] = {0, 0, kUntouched};
      product.columns({.floats = got.data(), .range = range}, 3);
      for (int64_t m = 0; m < s.m; ++m) {
        for (int64_t n = 0; n < s.n; ++n) {
          const float a = want[static_cast<size_t>(m * s.n + n)];
          const float b = got[static_cast<size_t>((m / 64 * s.n + n) * 64 + m % 64)];
          ASSERT_EQ(a, b) << s.m << " x " << s.n << " x " << s.k << " at " << m << ", " << n << " seed " << seed();
        }
      }
      EXPECT_EQ(got.back(), kUntouched);
      EXPECT_EQ(range[0], std::min(0.0F, *std::min_element(want.begin(), want.end())));
      EXPECT_EQ(range[1], std::max(0.0F, *std::max_element(want.begin(), want.end())));
      EXPECT_EQ(range[2], kUntouched);
    }
  }
}

TEST_P(BsrColumnsTest, CodesAreTheSlabsOfQuantisedRows) {
  const QuantizeRowsKernel& quantise = *select(quantize_rows_kernels(), available_isas()).kernel;
  for (const Size& s : kSizes) {
    Product product(kernel(), s, s.m % 2 == 0 ? Activation::kGeluErf : Activation::kGeluErfCodes, 1);
    const std::vector<float> y = product.rows(2);
    const float scale = 0.05F;
    const int32_t zero = 40;
    std::vector<uint8_t> codes(y.size());
    quantise.quantize(y.data(), s.n, s.m, s.n, scale, zero, codes.data(), s.n, nullptr);
    std::vector<uint8_t> want(static_cast<size_t>(product.slabs() * s.n * 64)), direct(want.size() + 1, 77), later = direct;
    pack_x_slabs(kernel(), codes.data(), s.n, s.m, s.n, want.data(), SerialParallelFor{1});
    product.columns({.codes = direct.data(), .scale = scale, .zero_point = zero}, 2);

    std::vector<float> floats(want.size(), std::numeric_limits<float>::quiet_NaN());
    float range[2] = {0, 0};
    product.columns({.floats = floats.data(), .range = range}, 1);
    for (int64_t slab = 0; slab < product.slabs(); ++slab) {
      kernel().quantize_columns(floats.data() + slab * s.n * 64, s.n, s.m - slab * 64, scale, zero,
                                later.data() + slab * s.n * 64);
    }
    for (int64_t i = 0; i < product.slabs() * s.n * 64; ++i) {
      const int64_t at = i % 64, token = i / (s.n * 64) * 64 + at % 16 / 4 * 16 + at / 16 * 4 + at % 4;
      if (token >= s.m) continue;
      ASSERT_EQ(want[static_cast<size_t>(i)], direct[static_cast<size_t>(i)]) << s.m << " x " << s.n << " at " << i;
      ASSERT_EQ(want[static_cast<size_t>(i)], later[static_cast<size_t>(i)]) << s.m << " x " << s.n << " at " << i;
    }
    EXPECT_EQ(direct.back(), 77);
    EXPECT_EQ(later.back(), 77);
  }
}

// Every row keeps what lies behind its outputs; flip makes s8 of u8.
TEST_P(BsrColumnsTest, CodesGoBackToRows) {
  for (const int64_t outputs : {1, 15, 16, 17, 35, 64}) {
    for (const int64_t tokens : {1, 3, 16, 21, 47, 63, 64}) {
      const int64_t ldy = outputs + 5;
      std::vector<uint8_t> rows(static_cast<size_t>(tokens * outputs)), columns(static_cast<size_t>(outputs * 64));
      for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<uint8_t>(i * 37 + i / 251);
      pack_x_slabs(kernel(), rows.data(), outputs, tokens, outputs, columns.data(), SerialParallelFor{1});
      for (const uint8_t flip : {uint8_t{0}, uint8_t{0x80}}) {
        std::vector<uint8_t> got(static_cast<size_t>(tokens * ldy + 1), 77);
        kernel().rows_of_columns(columns.data(), outputs, tokens, flip, got.data() + 1, ldy);
        for (int64_t i = 0; i < tokens * ldy; ++i) {
          const bool inside = i % ldy < outputs;
          const int want = inside ? rows[static_cast<size_t>(i / ldy * outputs + i % ldy)] ^ flip : 77;
          ASSERT_EQ(want, got[static_cast<size_t>(i + 1)]) << outputs << " x " << tokens << " at " << i;
        }
        EXPECT_EQ(got[0], 77);
      }
    }
  }
}

TEST_P(BsrColumnsTest, ExtremeFloatsSaturateAndNanIsZero) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float values[] = {kInf, -kInf, std::numeric_limits<float>::quiet_NaN(), 1e30F, -1e30F, 0.5F, 1.5F, 2.5F, -0.5F, 0.0F};
  std::vector<float> x(64);
  for (size_t i = 0; i < 64; ++i) x[i] = values[i % std::size(values)];
  std::vector<uint8_t> got(64), codes(64), want(64);
  kernel().quantize_columns(x.data(), 1, 64, 1.0F, 3, got.data());
  const QuantizeRowsKernel& quantise = *select(quantize_rows_kernels(), available_isas()).kernel;
  quantise.quantize(x.data(), 1, 64, 1, 1.0F, 3, codes.data(), 1, nullptr);
  pack_x_slabs(kernel(), codes.data(), 1, 64, 1, want.data(), SerialParallelFor{1});
  EXPECT_EQ(got, want);
}

INSTANTIATE_TEST_SUITE_P(Kernels, BsrColumnsTest, testing::Range(size_t{0}, bsr_u8s8_kernels().size()),
                         [](const testing::TestParamInfo<size_t>& each) {
                           return std::string(bsr_u8s8_kernels()[each.param].name);
                         });

}  // namespace
}  // namespace sprun::kernels
