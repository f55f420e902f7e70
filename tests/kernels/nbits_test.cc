// Every variant of the block-quantised weight family against its reference.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/nbits/nbits.h"

namespace sprun::kernels {
namespace {

enum class Zeros { kNone, kU8, kF32 };

struct Problem {
  int64_t m = 1, n = 5, k = 64;
  int64_t block_size = 32;
  int bits = 4;
  Zeros zeros = Zeros::kNone;
};

// Weights, scales and inputs of one problem; `data` starts at an odd address, as in a mapped file.
class Data {
 public:
  explicit Data(const Problem& p) : problem_(p), engine_(7) {
    w_ = {.n = p.n,
          .k = p.k,
          .block_size = p.block_size,
          .blocks = (p.k + p.block_size - 1) / p.block_size,
          .bits = p.bits};
    const int64_t blocks = w_.n * w_.blocks;
    bytes_.resize(static_cast<size_t>(w_.n * w_.row_bytes() + 1));
    for (uint8_t& b : bytes_) b = static_cast<uint8_t>(engine_());
    fill(scale_, blocks);
    fill(zero_f32_, blocks);
    for (int64_t i = 0; i < blocks; ++i) zero_u8_.push_back(static_cast<uint8_t>(engine_() % (1U << p.bits)));
    fill(x_, p.m * p.k);
    fill(bias_, p.n);
    w_.data = bytes_.data() + 1;
    w_.scale = scale_.data();
    if (p.zeros == Zeros::kU8) w_.zero_u8 = zero_u8_.data();
    if (p.zeros == Zeros::kF32) w_.zero_f32 = zero_f32_.data();
  }

  std::vector<float> gemv(const NbitsKernel& kernel, bool with_bias, int64_t n_begin, int64_t n_end,
                          const std::vector<int32_t>& ids = {}) const {
    const int64_t stride = kernel.arranged_size(w_), ldy = problem_.n + 3;
    std::vector<float> x(static_cast<size_t>(problem_.m * stride), std::nanf(""));
    for (int64_t m = 0; m < problem_.m; ++m) kernel.arrange(w_, x_.data() + m * problem_.k, x.data() + m * stride);
    std::vector<float> y(static_cast<size_t>(problem_.m * ldy), 777.0F);
    kernel.gemv({.w = w_,
                 .m = problem_.m,
                 .x = x.data(),
                 .x_stride = stride,
                 .bias = with_bias ? bias_.data() : nullptr,
                 .y = y.data(),
                 .ldy = ldy,
                 .ids = ids.empty() ? nullptr : ids.data(),
                 .listed = static_cast<int64_t>(ids.size())},
                n_begin, n_end);
    return y;
  }

  std::vector<float> pack(const NbitsKernel& kernel, int64_t columns, int64_t nr) const {
    std::vector<float> out(static_cast<size_t>(problem_.k * nr), 777.0F);
    kernel.pack(w_, problem_.n - columns, columns, nr, out.data());
    return out;
  }

 private:
  void fill(std::vector<float>& v, int64_t n) {
    for (int64_t i = 0; i < n; ++i) v.push_back(static_cast<float>(engine_()) / 2147483648.0F - 1.0F);
  }

  Problem problem_;
  std::mt19937 engine_;
  NbitsWeight w_;
  std::vector<uint8_t> bytes_, zero_u8_;
  std::vector<float> scale_, zero_f32_, x_, bias_;
};

class NbitsTest : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (!available_isas().contains(info().isa)) GTEST_SKIP() << unavailable_reason(info().isa, available_isas());
  }
  const KernelInfo<NbitsKernel>& info() const { return nbits_kernels()[GetParam()]; }
  const NbitsKernel& reference() const { return *nbits_kernels().back().kernel; }

  void check(const Problem& p) const {
    SCOPED_TRACE(testing::Message() << "m " << p.m << " n " << p.n << " k " << p.k << " block " << p.block_size
                                    << " bits " << p.bits << " zeros " << static_cast<int>(p.zeros));
    const Data data(p);
    const auto want = data.gemv(reference(), true, 1, p.n), got = data.gemv(*info().kernel, true, 1, p.n);
    // 2^bits is the largest |code - zero| times |x| <= 1 times |scale| <= 1, summed over K in another order.
    const double tolerance = 1.2e-7 * static_cast<double>(p.k + 1) * (1 << p.bits) * 2;
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << i;
    for (int64_t nr : {6, 16, 32}) {
      const int64_t columns = std::min(nr, p.n);
      EXPECT_EQ(data.pack(*info().kernel, columns, nr), data.pack(reference(), columns, nr)) << nr;
    }
  }
};

TEST_P(NbitsTest, EqualsTheReference) {
  for (int bits : {2, 4, 8}) {
    for (Zeros zeros : {Zeros::kNone, Zeros::kU8, Zeros::kF32}) {
      for (int64_t block : {16, 32, 64, 128, 256}) {
        for (int64_t k : {2 * block, 3 * block - 7, 7 * block, 5 * block + 1}) {
          check({.m = 1, .n = 7, .k = k, .block_size = block, .bits = bits, .zeros = zeros});
        }
      }
    }
  }
}

TEST_P(NbitsTest, TakesSeveralRows) {
  for (int bits : {2, 4, 8}) {
    for (int64_t m : {1, 2, 3, 4, 5, 7, 8}) {
      check({.m = m, .n = 9, .k = 200, .block_size = 32, .bits = bits, .zeros = Zeros::kU8});
    }
  }
}

TEST_P(NbitsTest, ListedOutputsHaveTheBitsOfAll) {
  const std::vector<int32_t> ids = {0, 3, 4, 5, 5, 11, 12, 17, 18};
  for (int bits : {2, 4, 8}) {
    for (Zeros zeros : {Zeros::kNone, Zeros::kU8, Zeros::kF32}) {
      for (int64_t m : {1, 2, 5}) {
        const Data data({.m = m, .n = 19, .k = 100, .block_size = 32, .bits = bits, .zeros = zeros});
        const auto all = data.gemv(*info().kernel, true, 0, 19), some = data.gemv(*info().kernel, true, 0, 9, ids);
        for (int64_t r = 0; r < m; ++r) {
          for (size_t i = 0; i < ids.size(); ++i) {
            const auto row = static_cast<size_t>(r * 22);
            EXPECT_EQ(some[row + i], all[row + static_cast<size_t>(ids[i])]) << bits << " place " << i;
          }
        }
      }
    }
  }
}

TEST_P(NbitsTest, BytesInOneBlockOfAnyLength) {
  for (int64_t k : {150, 192}) check({.m = 3, .n = 9, .k = k, .block_size = 192, .bits = 8, .zeros = Zeros::kU8});
}

TEST_P(NbitsTest, WritesOnlyItsOutputs) {
  const Data data({.m = 2, .n = 9, .k = 64});
  const auto y = data.gemv(*info().kernel, false, 3, 5);
  for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i] != 777.0F, i % 12 == 3 || i % 12 == 4) << i;
}

INSTANTIATE_TEST_SUITE_P(Variants, NbitsTest, testing::Range<size_t>(0, nbits_kernels().size()),
                         [](const auto& i) { return std::string(nbits_kernels()[i.param].name); });

}  // namespace
}  // namespace sprun::kernels
