// Every GEMM variant of this machine against the scalar reference of its family.
#include "kernels/gemm/gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/gemm/quantize_rows.h"
#include "kernels/simd/half.h"
#include "tests/support/aligned.h"
#include "tests/support/draw.h"
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

unsigned seed() { return testing_support::seed_or(20240607U); }

// Around the register tiles (12 or 6 rows, 32, 16, 8 or 4 outputs), K around its steps, primes.
const Size kSizes[] = {{1, 1, 1},    {1, 33, 5},   {2, 31, 2},   {3, 32, 3},    {4, 64, 64},
                       {5, 7, 130},  {11, 65, 17}, {12, 32, 31}, {13, 40, 33},  {25, 16, 9},
                       {27, 97, 53}, {1, 8, 1031}, {6, 48, 775}, {29, 35, 1537}, {2, 5, 0}};

template <class T>
std::vector<T> with_offset(size_t size, T fill) {
  return std::vector<T>(size + 1, fill);  // callers use data() + 1: an unaligned base
}

std::vector<float> random_floats(size_t size, std::mt19937& rng, float scale = 1.0F) {
  std::uniform_real_distribution<float> uniform(-scale, scale);
  std::vector<float> v(size);
  for (float& x : v) x = uniform(rng);
  return v;
}

// One f32 problem with its own stride for every operand and canaries in all gaps.
struct F32Problem {
  Size size;
  int64_t ldx, ldy, ldr;
  std::vector<float> x, w, bias, residual;
  Epilogue epilogue;

  F32Problem(Size s, Epilogue e, unsigned salt)
      : size(s), ldx(s.k + 3), ldy(s.n + 5), ldr(s.n + 2) {
    std::mt19937 rng(seed() + salt);
    x = random_floats(static_cast<size_t>(s.m * ldx + 1), rng);
    w = random_floats(static_cast<size_t>(s.n * s.k), rng);
    bias = random_floats(static_cast<size_t>(s.n), rng);
    residual = random_floats(static_cast<size_t>(s.m * ldr), rng);
    for (int64_t m = 0; m < s.m; ++m) {  // a kernel that uses the gap of X produces NaN
      for (int64_t i = s.k; i < ldx; ++i) x[static_cast<size_t>(1 + m * ldx + i)] = kNan;
    }
    epilogue = e;
    if (e.bias != nullptr) epilogue.bias = bias.data();
    if (e.residual != nullptr) epilogue.residual = residual.data();
    epilogue.ld_residual = ldr;
  }

  std::vector<float> run(const GemmF32Kernel& kernel, bool transposed, int workers) const {
    const auto& s = size;
    std::vector<float> stored = w;
    WeightSource<float> source{stored.data(), s.n, s.k, s.k, 1};
    if (transposed) {
      for (int64_t n = 0; n < s.n; ++n) {
        for (int64_t k = 0; k < s.k; ++k) {
          stored[static_cast<size_t>(k * s.n + n)] = w[static_cast<size_t>(n * s.k + k)];
        }
      }
      source = {stored.data(), s.n, s.k, 1, s.n};
    }
    std::vector<float> packed(static_cast<size_t>(packed_size_f32(s.n, s.k, kernel.nr)), kCanary);
    const SerialParallelFor parallel_for{workers};
    gemm_f32_pack_b(kernel, source, workers, packed.data(), parallel_for);
    std::vector<float> y = with_offset(static_cast<size_t>(s.m * ldy), kCanary);
    const Aligned scratch = aligned(gemm_scratch_bytes(kernel, workers), 0);
    const GemmF32Args args{s.m, s.n,          s.k, x.data() + 1, ldx, packed.data(),
                           y.data() + 1, ldy, epilogue};
    gemm_f32(kernel, args, workers, scratch.get(), parallel_for);
    return y;
  }
};

// Same canaries and, where Y is, within `bound`.
void expect_close(const std::vector<float>& got, const std::vector<float>& want, int64_t n,
                  int64_t ldy, double bound, const std::string& what) {
  for (size_t i = 1; i < got.size(); ++i) {
    const int64_t column = static_cast<int64_t>(i - 1) % ldy;
    if (column >= n) {
      ASSERT_EQ(got[i], kCanary) << what << ": gap of Y overwritten at " << i - 1;
      continue;
    }
    ASSERT_NEAR(static_cast<double>(got[i]), static_cast<double>(want[i]), bound)
        << what << " row " << static_cast<int64_t>(i - 1) / ldy << " column " << column << " seed "
        << seed();
  }
}

double f32_bound(int64_t k) {
  return static_cast<double>(std::numeric_limits<float>::epsilon()) *
         (static_cast<double>(k) + 1.0) * 2.0 + 2e-6;
}

template <class Kernel>
const Kernel& reference(std::span<const KernelInfo<Kernel>> list) {
  return *list.back().kernel;
}

template <class Kernel, class Fn>
void for_each_variant(std::span<const KernelInfo<Kernel>> list, Fn fn) {
  for (const auto& info : list) {
    if (available_isas().contains(info.isa)) fn(info);
  }
}

TEST(GemmF32, EveryVariantMatchesTheReference) {
  unsigned salt = 0;
  for (const Size& s : kSizes) {
    const F32Problem p(s, {}, ++salt);
    const std::vector<float> want = p.run(reference(gemm_f32_kernels()), false, 1);
    for_each_variant(gemm_f32_kernels(), [&](const auto& info) {
      const std::string what = std::string(info.name) + " m" + std::to_string(s.m);
      for (bool transposed : {false, true}) {
        for (int workers : {1, 3}) {
          expect_close(p.run(*info.kernel, transposed, workers), want, s.n, p.ldy, f32_bound(s.k),
                       what);
        }
      }
    });
  }
}

TEST(GemmF32, EveryRowCountUpToTwoTilesMatches) {
  for (int64_t m = 1; m <= 26; ++m) {
    const F32Problem p({m, 33, 21}, {}, static_cast<unsigned>(m));
    const std::vector<float> want = p.run(reference(gemm_f32_kernels()), false, 1);
    for_each_variant(gemm_f32_kernels(), [&](const auto& info) {
      expect_close(p.run(*info.kernel, false, 1), want, 33, p.ldy, f32_bound(21),
                   std::string(info.name));
    });
  }
}

TEST(GemmF32, BlocksOfRowsLargerThanTheCacheMatch) {
  const F32Problem p({190, 40, 1600}, {}, 99);
  const std::vector<float> want = p.run(reference(gemm_f32_kernels()), false, 1);
  for_each_variant(gemm_f32_kernels(), [&](const auto& info) {
    expect_close(p.run(*info.kernel, false, 2), want, 40, p.ldy, f32_bound(1600),
                 std::string(info.name));
  });
}

TEST(GemmF32, EpilogueAppliesScaleBiasActivationAndResidualInThisOrder) {
  const float present = 0;  // any non-null pointer: F32Problem puts its own arrays there
  for (int act = 0; act <= static_cast<int>(Activation::kSigmoid); ++act) {
    for (bool with_bias : {false, true}) {
      for (bool with_residual : {false, true}) {
        Epilogue e;
        e.bias = with_bias ? &present : nullptr;
        e.residual = with_residual ? &present : nullptr;
        e.alpha = -0.75F;
        e.activation = static_cast<Activation>(act);
        const F32Problem p({14, 43, 19}, e, static_cast<unsigned>(act));
        const std::vector<float> want = p.run(reference(gemm_f32_kernels()), false, 1);
        for_each_variant(gemm_f32_kernels(), [&](const auto& info) {
          expect_close(p.run(*info.kernel, false, 1), want, 43, p.ldy, 8e-6,
                       std::string(info.name) + " activation " + std::to_string(act));
        });
      }
    }
  }
}

TEST(GemmF32, ResidualMayBeTheOutputItself) {
  const Size s{13, 37, 900};
  const F32Problem p(s, {}, 5);
  const std::vector<float> product = p.run(reference(gemm_f32_kernels()), false, 1);
  for_each_variant(gemm_f32_kernels(), [&](const auto& info) {
    const GemmF32Kernel& kernel = *info.kernel;
    std::vector<float> packed(static_cast<size_t>(packed_size_f32(s.n, s.k, kernel.nr)));
    kernel.pack({p.w.data(), s.n, s.k, s.k, 1}, 0, num_panels(s.n, kernel.nr), packed.data());
    std::vector<float> y(static_cast<size_t>(s.m * s.n), 2.0F);
    GemmF32Args args{s.m, s.n, s.k, p.x.data() + 1, p.ldx, packed.data(), y.data(), s.n, {}};
    args.epilogue.residual = y.data();
    args.epilogue.ld_residual = s.n;
    const Aligned scratch = aligned(gemm_scratch_bytes(kernel, 1), 0);
    gemm_f32(kernel, args, 1, scratch.get(), SerialParallelFor{1});
    for (int64_t m = 0; m < s.m; ++m) {
      for (int64_t n = 0; n < s.n; ++n) {
        ASSERT_NEAR(y[static_cast<size_t>(m * s.n + n)],
                    product[static_cast<size_t>(1 + m * p.ldy + n)] + 2.0F, f32_bound(s.k));
      }
    }
  });
}

TEST(GemmF32, NanAndInfinityReachExactlyTheirRowAndColumn) {
  for_each_variant(gemm_f32_kernels(), [&](const auto& info) {
    F32Problem p({15, 34, 8}, {}, 3);
    p.x[static_cast<size_t>(1 + 4 * p.ldx + 2)] = kNan;
    p.x[static_cast<size_t>(1 + 9 * p.ldx + 7)] = kInf;
    p.w[33 * 8 + 1] = kNan;
    const std::vector<float> y = p.run(*info.kernel, false, 1);
    for (int64_t m = 0; m < 15; ++m) {
      for (int64_t n = 0; n < 34; ++n) {
        const float v = y[static_cast<size_t>(1 + m * p.ldy + n)];
        if (m == 4 || n == 33) {
          EXPECT_TRUE(std::isnan(v)) << info.name << " " << m << "," << n;
        } else if (m == 9) {
          EXPECT_TRUE(std::isinf(v)) << info.name << " " << m << "," << n;
        } else {
          EXPECT_TRUE(std::isfinite(v)) << info.name << " " << m << "," << n;
        }
      }
    }
  });
}

TEST(GemmF32, EmptyProblemsWriteNothing) {
  for_each_variant(gemm_f32_kernels(), [&](const auto& info) {
    for (const Size& s : {Size{0, 5, 3}, Size{3, 0, 5}}) {
      float y = kCanary;
      const GemmF32Args args{s.m, s.n, s.k, &y, s.k, &y, &y, s.n, {}};
      const Aligned scratch = aligned(gemm_scratch_bytes(*info.kernel, 1), 0);
      gemm_f32(*info.kernel, args, 1, scratch.get(), SerialParallelFor{1});
      EXPECT_EQ(y, kCanary);
    }
  });
}

TEST(GemmBf16, EveryVariantMatchesTheReference) {
  unsigned salt = 100;
  for (const Size& s : kSizes) {
    const F32Problem p(s, {}, ++salt);
    const auto run = [&](const GemmBf16Kernel& kernel, bool transposed, int workers) {
      std::vector<float> stored = p.w;
      WeightSource<float> source{stored.data(), s.n, s.k, s.k, 1};
      if (transposed) {
        for (int64_t i = 0; i < s.n * s.k; ++i) {
          stored[static_cast<size_t>(i % s.k * s.n + i / s.k)] = p.w[static_cast<size_t>(i)];
        }
        source = {stored.data(), s.n, s.k, 1, s.n};
      }
      std::vector<uint16_t> packed(static_cast<size_t>(packed_size_bf16(s.n, s.k, kernel.nr)));
      kernel.pack(source, 0, num_panels(s.n, kernel.nr), packed.data());
      std::vector<float> y = with_offset(static_cast<size_t>(s.m * p.ldy), kCanary);
      const Aligned scratch = aligned(gemm_bf16_scratch_bytes(kernel, s.m, s.k, workers), 0);
      GemmBf16Args args{s.m, s.n, s.k, nullptr, 0, packed.data(), y.data() + 1, p.ldy, {}};
      args.epilogue.bias = p.bias.data();
      gemm_bf16(kernel, p.x.data() + 1, p.ldx, args, workers, scratch.get(),
                SerialParallelFor{workers});
      return y;
    };
    const std::vector<float> want = run(reference(gemm_bf16_kernels()), false, 1);
    for_each_variant(gemm_bf16_kernels(), [&](const auto& info) {
      for (int workers : {1, 3}) {
        expect_close(run(*info.kernel, workers == 3, workers), want, s.n, p.ldy, f32_bound(s.k),
                     std::string(info.name));
      }
    });
  }
}

struct U8S8Problem {
  Size size;
  int64_t ldx, ldy;
  std::vector<uint8_t> x;
  std::vector<int8_t> w;
  std::vector<int32_t> x_zero, w_zero, x_sum;
  std::vector<float> x_scale, w_scale, bias;

  U8S8Problem(Size s, unsigned salt, bool extreme) : size(s), ldx(s.k + 3), ldy(s.n + 5) {
    std::mt19937 rng(seed() + salt);
    const auto value = [&](int lo, int hi) {
      if (extreme) return rng() % 4 == 0 ? lo : hi;
      return std::uniform_int_distribution<int>(lo, hi)(rng);
    };
    x.assign(static_cast<size_t>(s.m * ldx + 1), 0xee);
    w.resize(static_cast<size_t>(s.n * s.k));
    for (int8_t& v : w) v = static_cast<int8_t>(value(extreme ? -128 : -127, extreme ? -128 : 127));
    if (extreme) {
      for (size_t i = 0; i < w.size(); i += 3) w[i] = 127;
    }
    for (int64_t m = 0; m < s.m; ++m) {
      int32_t sum = 0;
      for (int64_t i = 0; i < s.k; ++i) {
        const uint8_t v = static_cast<uint8_t>(value(0, 255));
        x[static_cast<size_t>(1 + m * ldx + i)] = v;
        sum += v;
      }
      x_sum.push_back(sum);
      x_zero.push_back(value(0, 255));
      x_scale.push_back(0.01F + 0.001F * static_cast<float>(m));
    }
    for (int64_t n = 0; n < s.n; ++n) {
      w_zero.push_back(value(-128, 127));
      w_scale.push_back(0.02F + 0.0007F * static_cast<float>(n));
      bias.push_back(static_cast<float>(n) - 3.0F);
    }
  }

  enum class Mode { kRaw, kXZero, kBothZero, kPerTensor };

  struct Output {
    std::vector<int32_t> s32;
    std::vector<float> f32;
  };

  Output run(const GemmU8S8Kernel& kernel, Mode mode, bool transposed, int workers) const {
    const auto& s = size;
    std::vector<int8_t> stored = w;
    WeightSource<int8_t> source{stored.data(), s.n, s.k, s.k, 1};
    if (transposed) {
      for (int64_t i = 0; i < s.n * s.k; ++i) {
        stored[static_cast<size_t>(i % s.k * s.n + i / s.k)] = w[static_cast<size_t>(i)];
      }
      source = {stored.data(), s.n, s.k, 1, s.n};
    }
    std::vector<int8_t> packed(static_cast<size_t>(packed_size_s8(s.n, s.k, kernel.nr)));
    std::vector<int32_t> w_sum(static_cast<size_t>(num_panels(s.n, kernel.nr) * kernel.nr));
    pack_s8(source, kernel.nr, 0, num_panels(s.n, kernel.nr), packed.data(), w_sum.data());
    Output out;
    out.s32.assign(static_cast<size_t>(s.m * ldy + 1), -777);
    out.f32.assign(static_cast<size_t>(s.m * ldy + 1), kCanary);
    GemmU8S8Args args{};
    args.m = s.m;
    args.n = s.n;
    args.k = s.k;
    args.x = x.data() + 1;
    args.ldx = ldx;
    args.w = packed.data();
    args.w_sum = w_sum.data();
    args.ldy = ldy;
    if (mode != Mode::kRaw) {
      args.x_zero_point = x_zero.data();
      args.x_zero_point_stride = mode == Mode::kPerTensor ? 0 : 1;
    }
    if (mode == Mode::kBothZero || mode == Mode::kPerTensor) {
      args.w_zero_point = w_zero.data();
      args.w_zero_point_stride = mode == Mode::kPerTensor ? 0 : 1;
      args.x_sum = x_sum.data();
    }
    args.x_scale = x_scale.data();
    args.w_scale = w_scale.data();
    args.x_scale_stride = args.w_scale_stride = mode == Mode::kPerTensor ? 0 : 1;
    const Aligned scratch = aligned(gemm_scratch_bytes(kernel, workers), 0);
    args.y_s32 = out.s32.data() + 1;
    gemm_u8s8(kernel, args, workers, scratch.get(), SerialParallelFor{workers});
    args.y_s32 = nullptr;
    args.y = out.f32.data() + 1;
    args.epilogue.bias = bias.data();
    args.epilogue.activation = Activation::kRelu;
    gemm_u8s8(kernel, args, workers, scratch.get(), SerialParallelFor{workers});
    return out;
  }
};

void expect_u8s8_variants_match(const Size& s, unsigned salt, bool extreme) {
  using Mode = U8S8Problem::Mode;
  const U8S8Problem p(s, salt, extreme);
  for (Mode mode : {Mode::kRaw, Mode::kXZero, Mode::kBothZero, Mode::kPerTensor}) {
    const auto want = p.run(reference(gemm_u8s8_kernels()), mode, false, 1);
    for_each_variant(gemm_u8s8_kernels(), [&](const auto& info) {
      for (int workers : {1, 3}) {
        const auto got = p.run(*info.kernel, mode, workers == 3, workers);
        ASSERT_EQ(got.s32, want.s32) << info.name << " " << s.m << "x" << s.n << "x" << s.k
                                     << " seed " << seed();
        for (size_t i = 0; i < got.f32.size(); ++i) {
          const double w = static_cast<double>(want.f32[i]);
          ASSERT_NEAR(static_cast<double>(got.f32[i]), w, 1e-5 + 1e-6 * std::fabs(w))
              << info.name << " at " << i;
        }
      }
    });
  }
}

TEST(GemmU8S8, EveryVariantIsExact) {
  unsigned salt = 200;
  for (const Size& s : kSizes) expect_u8s8_variants_match(s, ++salt, false);
}

TEST(GemmU8S8, ExtremeValuesDoNotSaturate) {
  for (const Size& s : {Size{13, 33, 64}, Size{1, 32, 4099}, Size{3, 9, 7}}) {
    expect_u8s8_variants_match(s, 300, true);
  }
}

TEST(GemmU8S8, LargestAllowedKDoesNotOverflow) {
  constexpr int64_t kK = 65793;
  std::vector<uint8_t> x(kK, 255);
  std::vector<int8_t> w(kK, -128);
  for_each_variant(gemm_u8s8_kernels(), [&](const auto& info) {
    std::vector<int8_t> packed(static_cast<size_t>(packed_size_s8(1, kK, info.kernel->nr)));
    std::vector<int32_t> w_sum(static_cast<size_t>(info.kernel->nr));
    pack_s8({w.data(), 1, kK, kK, 1}, info.kernel->nr, 0, 1, packed.data(), w_sum.data());
    int32_t y = 0;
    GemmU8S8Args args{};
    args.m = args.n = 1;
    args.k = args.ldx = kK;
    args.x = x.data();
    args.w = packed.data();
    args.w_sum = w_sum.data();
    args.y_s32 = &y;
    args.ldy = 1;
    const Aligned scratch = aligned(gemm_scratch_bytes(*info.kernel, 1), 0);
    gemm_u8s8(*info.kernel, args, 1, scratch.get(), SerialParallelFor{1});
    EXPECT_EQ(y, -2147483520) << info.name;
  });
}

TEST(Pack, U8WeightsAreStoredMinus128) {
  const std::vector<uint8_t> w = {0, 128, 255, 7, 9, 200};  // [2, 3]
  std::vector<int8_t> packed(static_cast<size_t>(packed_size_s8(2, 3, 4)));
  int32_t sums[4];
  pack_u8({w.data(), 2, 3, 3, 1}, 4, 0, 1, packed.data(), sums);
  EXPECT_EQ(packed, (std::vector<int8_t>{-128, 0, 127, 0, -121, -119, 72, 0, 0, 0, 0, 0, 0, 0, 0,
                                         0}));
  EXPECT_EQ(sums[0], -1);
  EXPECT_EQ(sums[1], -168);
  EXPECT_EQ(sums[3], 0);
}

TEST(Pack, WeightsAreQuantisedPerOutput) {
  const std::vector<float> w = {1.0F, -2.0F, 0.5F, 0.0F, 0.0F, 0.0F, kInf, 1.0F, 1.0F};
  std::vector<int8_t> q(9);
  float scale[3];
  quantize_weights_s8({w.data(), 3, 3, 3, 1}, 0, 3, q.data(), scale);
  EXPECT_FLOAT_EQ(scale[0], 2.0F / 127.0F);
  EXPECT_EQ(q[0], 64);  // 63.5 rounds to even
  EXPECT_EQ(q[1], -127);
  EXPECT_EQ(q[3], 0);
  EXPECT_EQ(scale[1], 1.0F);
}

TEST(QuantizeRows, EveryVariantMatchesTheReferenceBitForBit) {
  std::mt19937 rng(seed());
  for (int64_t k : {1, 3, 16, 31, 33, 64, 257}) {
    constexpr int64_t kRows = 5;
    const int64_t ldx = k + 2;
    const int64_t ldy = k + 3;
    std::vector<float> x = random_floats(static_cast<size_t>(kRows * ldx), rng, 7.0F);
    for (bool per_row : {false, true}) {
      const auto run = [&](const QuantizeRowsKernel& kernel) {
        struct Out {
          std::vector<uint8_t> y;
          std::vector<float> scale;
          std::vector<int32_t> zero, sums;
          bool operator==(const Out&) const = default;
        } out;
        out.y.assign(static_cast<size_t>(kRows * ldy), 0xcd);
        out.scale.assign(kRows, 0);
        out.zero.assign(kRows, 0);
        out.sums.assign(kRows, 0);
        const QuantizeRowsArgs args{x.data(), ldx, kRows, k, out.y.data(), ldy, out.scale.data(),
                                    out.zero.data(), out.sums.data()};
        const Aligned scratch = aligned(quantize_per_tensor_scratch_bytes(2), 0);
        if (per_row) {
          quantize_per_row(kernel, args, 2, SerialParallelFor{2});
        } else {
          quantize_per_tensor(kernel, args, 2, scratch.get(), SerialParallelFor{2});
        }
        return out;
      };
      const auto want = run(reference(quantize_rows_kernels()));
      for_each_variant(quantize_rows_kernels(), [&](const auto& info) {
        EXPECT_TRUE(run(*info.kernel) == want) << info.name << " k " << k << " per_row " << per_row;
      });
    }
  }
}

TEST(QuantizeRows, SaturatesAndSurvivesSpecialValues) {
  const float x[] = {1e30F, -1e30F, kInf, -kInf, kNan, 0.5F, 1.5F, -0.5F, 300.0F, 1.0F,
                     2.5F,  3.5F,   0.0F, -0.0F, 9.0F, 8.0F, 7.0F};
  uint8_t want[17];
  quantize_rows_kernels().back().kernel->quantize(x, 17, 1, 17, 1.0F, 10, want, 17, nullptr);
  EXPECT_EQ(want[0], 255);
  EXPECT_EQ(want[1], 0);
  EXPECT_EQ(want[4], 0);
  EXPECT_EQ(want[5], 10);
  EXPECT_EQ(want[6], 12);
  for_each_variant(quantize_rows_kernels(), [&](const auto& info) {
    uint8_t y[17];
    info.kernel->quantize(x, 17, 1, 17, 1.0F, 10, y, 17, nullptr);
    EXPECT_EQ(std::memcmp(y, want, sizeof(y)), 0) << info.name;
  });
}

// Codes are those of a true division and of rounding half to even, most of all where a quotient is next to a tie.
TEST(QuantizeRows, CodesAreThoseOfACorrectlyRoundedQuotient) {
  std::mt19937 rng(31);
  constexpr int64_t kN = 1024;
  std::vector<float> scales{1.0F, 0x1.fffffep-3F, 0x1.000002p-9F, 0x1p-126F, 0x1p-100F, 0x1p-90F, 0x1p90F, 0x1p120F};
  std::uniform_real_distribution<float> exponent(-100.0F, 100.0F);
  for (int i = 0; i < 400; ++i) scales.push_back(std::exp2(i < 300 ? 0.1F * exponent(rng) : exponent(rng)));
  std::vector<float> x(kN);
  std::vector<uint8_t> want(kN);
  std::vector<uint8_t> got(kN);
  for (float scale : scales) {
    const int32_t zero = std::uniform_int_distribution<int32_t>(0, 255)(rng);
    for (float& v : x) {
      v = scale * (static_cast<float>(std::uniform_int_distribution<int>(-300, 300)(rng)) + 0.5F);
      for (auto n = rng() % 3; n > 0; --n) v = std::nextafter(v, rng() % 2 == 0 ? kInf : -kInf);
    }
    const float special[] = {kInf, -kInf, kNan, 3e38F, -3e38F, 1e-45F, -1e-38F, -0.0F};
    std::copy(std::begin(special), std::end(special), x.begin());
    for (size_t i = 0; i < x.size(); ++i) {
      const float q = std::nearbyint(x[i] / scale) + static_cast<float>(zero);
      want[i] = q > 255.0F ? 255 : q > 0.0F ? static_cast<uint8_t>(q) : 0;
    }
    for_each_variant(quantize_rows_kernels(), [&](const auto& info) {
      info.kernel->quantize(x.data(), kN, 1, kN, scale, zero, got.data(), kN, nullptr);
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_EQ(int{got[i]}, int{want[i]}) << info.name << ": " << x[i] << " / " << scale << " + " << zero;
      }
    });
  }
}

TEST(QuantizeRows, ParametersFollowTheOnnxFormula) {
  EXPECT_EQ(dynamic_quant_params(0.0F, 0.0F).scale, 1.0F);
  EXPECT_EQ(dynamic_quant_params(-1.0F, 3.0F).zero_point, 64);  // 63.75
  EXPECT_EQ(dynamic_quant_params(3.0F, 5.1F).zero_point, 0);
  EXPECT_FLOAT_EQ(dynamic_quant_params(3.0F, 5.1F).scale, 0.02F);
  EXPECT_EQ(dynamic_quant_params(-5.1F, -3.0F).zero_point, 255);
  EXPECT_EQ(dynamic_quant_params(-kInf, kInf).scale, 1.0F);
  EXPECT_EQ(dynamic_quant_params(kNan, kNan).scale, 1.0F);
}

TEST(Registry, SelectTakesTheBestAndExplainsTheRest) {
  std::vector<Rejection> why;
  const auto& chosen = select(gemm_f32_kernels(), IsaSet{Isa::kScalar}, &why);
  EXPECT_EQ(chosen.name, "gemm_f32_sse2");
  ASSERT_GE(why.size(), 1U);
  for (const Rejection& r : why) EXPECT_FALSE(r.reason.empty()) << r.kernel;
  EXPECT_EQ(gemm_u8s8_kernels().back().name, "gemm_u8s8_ref");
}

TEST(TileGrid, UnitsCoverTheProductOnce) {
  for (int workers : {1, 2, 7, 16}) {
    for (const Size& s :
         {Size{1, 5, 64}, Size{128, 256, 256}, Size{384, 3072, 768}, Size{500, 8, 9}}) {
      const TileGrid g = make_grid(s.m, s.n, s.k, 32, 4, workers);
      std::vector<int> seen(static_cast<size_t>(s.m * g.panels));
      for (int64_t begin = 0; begin < g.units(); begin += g.grain) {
        for_each_tile(g, begin, std::min(g.units(), begin + g.grain), [&](const TileRange& t) {
          for (int64_t m = t.m_begin; m < t.m_end; ++m) {
            for (int64_t p = t.panel_begin; p < t.panel_end; ++p) {
              ++seen[static_cast<size_t>(m * g.panels + p)];
            }
          }
        });
      }
      EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<int64_t>(seen.size()));
    }
  }
}

}  // namespace
}  // namespace sprun::kernels
