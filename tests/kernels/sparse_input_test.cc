// Products that read the weights of non-zero inputs only: every variant against the scalar reference.
#include "kernels/sparse_input/sparse_input.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/registry.h"
#include "kernels/simd/half.h"

namespace sprun::kernels {
namespace {

constexpr float kCanary = -12345.5F;

unsigned seed() {
  const char* env = std::getenv("SPRUN_TEST_SEED");
  return env == nullptr ? 20240607U : static_cast<unsigned>(std::strtoul(env, nullptr, 10));
}

constexpr SparseInputWeights kTypes[] = {SparseInputWeights::kF32, SparseInputWeights::kF16, SparseInputWeights::kBf16,
                                         SparseInputWeights::kS8};

struct Size {
  int64_t m, n, k;
  double density;
};

struct Problem {
  SparseInputWeights type;
  Size size;
  int64_t ldx, ldy, ldr;
  bool turned = false;  // the weight is stored [K, N]
  std::vector<float> x, scale, bias, residual;
  std::vector<uint32_t> stored;  // bits of the weight [N, K]
  Epilogue epilogue;

  Problem(SparseInputWeights t, Size s, unsigned salt) : type(t), size(s), ldx(s.k + 3), ldy(s.n + 5), ldr(s.n + 2) {
    std::mt19937 rng(seed() + salt);
    std::uniform_real_distribution<float> uniform(-1, 1);
    const auto floats = [&](int64_t count) {
      std::vector<float> v(static_cast<size_t>(count));
      for (float& f : v) f = uniform(rng);
      return v;
    };
    x = floats(s.m * ldx + 1);
    for (size_t i = 1; i < x.size(); ++i) {
      if (std::abs(uniform(rng)) >= static_cast<float>(s.density)) x[i] = 0;
      if (static_cast<int64_t>(i - 1) % ldx >= s.k) x[i] = NAN;  // a kernel that uses the gap of X produces NaN
    }
    scale = floats(s.n), bias = floats(s.n), residual = floats(s.m * ldr);
    for (int64_t i = 0; i < s.n * s.k; ++i) {
      const float v = uniform(rng);
      switch (t) {
        case SparseInputWeights::kF32: stored.push_back(__builtin_bit_cast(uint32_t, v)); break;
        case SparseInputWeights::kF16: stored.push_back(simd::f32_to_f16(v)); break;
        case SparseInputWeights::kBf16: stored.push_back(simd::f32_to_bf16(v)); break;
        case SparseInputWeights::kS8:
        case SparseInputWeights::kS4: stored.push_back(rng() & 255U); break;  // kS4: sparse_input_blocks_test.cc
      }
    }
    epilogue.ld_residual = ldr;
  }

  template <class T>
  std::vector<float> run_as(const SparseInputKernel& kernel, int workers) const {
    const auto [m, n, k, density] = size;
    std::vector<T> w(stored.size());
    for (int64_t i = 0; i < n * k; ++i) {
      w[static_cast<size_t>(turned ? i % k * n + i / k : i)] = static_cast<T>(stored[static_cast<size_t>(i)]);
    }
    const int64_t width = sparse_input_width(n, workers), panels = sparse_input_panels(n, width);
    std::vector<T> packed(static_cast<size_t>(panels * width * k) + 1, static_cast<T>(0x7f7f7f7fU));
    pack_sparse_input<T>({w.data(), n, k, turned ? 1 : k, turned ? n : 1}, width, 0, packed.data());
    std::vector<int32_t> ids(static_cast<size_t>(listed_capacity(k)));
    const int64_t ld = listed_capacity(k) + 1;
    std::vector<float> values(static_cast<size_t>(m * ld), NAN), y(static_cast<size_t>(m * ldy + 1), kCanary);
    SparseInputArgs args;
    int64_t active = 0;
    args.listed = list_inputs(x.data() + 1, ldx, m, k, ids.data(), values.data(), ld, &active);
    EXPECT_LE(active, m * k);
    EXPECT_EQ(args.listed % kSparseInputGroup, 0);
    args.m = m, args.n = n, args.k = k;
    args.ids = ids.data(), args.x = values.data(), args.ldx = ld;
    args.w = packed.data(), args.width = width;
    if (type == SparseInputWeights::kS8) args.scale = scale.data();
    args.y = y.data() + 1, args.ldy = ldy;
    args.epilogue = epilogue;
    void* acc = std::aligned_alloc(64, static_cast<size_t>(m * width * 4));
    for (int64_t p = 0; p < panels; ++p) kernel.run(args, p, p + 1, static_cast<float*>(acc));
    std::free(acc);
    return y;
  }
  std::vector<float> run(const SparseInputKernel& kernel, int workers) const {
    if (type == SparseInputWeights::kS8) return run_as<uint8_t>(kernel, workers);
    return type == SparseInputWeights::kF32 ? run_as<uint32_t>(kernel, workers) : run_as<uint16_t>(kernel, workers);
  }

  void expect_all_variants_match(const std::string& what) {
    const std::vector<float> want = run(*sparse_input_kernels(type).back().kernel, 1);
    const double largest = type == SparseInputWeights::kS8 ? 128 : 1;
    const double bound = 1.2e-7 * (static_cast<double>(size.k) + 1) * largest * 2 + 8e-6;
    for (const auto& info : sparse_input_kernels(type)) {
      if (!available_isas().contains(info.isa)) continue;
      for (bool other : {false, true}) {
        turned = other;
        const std::vector<float> got = run(*info.kernel, other ? 3 : 1);
        for (size_t i = 1; i < got.size(); ++i) {
          const bool gap = static_cast<int64_t>(i - 1) % ldy >= size.n;
          if (gap) ASSERT_EQ(got[i], kCanary) << info.name << " wrote into a gap, " << what;
          else ASSERT_NEAR(got[i], want[i], bound) << info.name << " at " << i - 1 << ", " << what << " seed " << seed();
        }
      }
    }
    turned = false;
  }
};

TEST(SparseInput, EveryVariantMatchesTheReference) {
  unsigned salt = 0;
  for (double density : {0.0, 0.1, 0.5, 1.0}) {
    for (const Size& s : {Size{1, 1, 1, 0}, {2, 63, 3, 0}, {3, 64, 4, 0}, {4, 65, 5, 0}, {5, 131, 8, 0}, {6, 7, 131, 0},
                          {7, 300, 33, 0}, {8, 1031, 67, 0}, {1, 2051, 11, 0}}) {
      for (SparseInputWeights type : kTypes) {
        Problem p(type, {s.m, s.n, s.k, density}, ++salt);
        p.expect_all_variants_match("m " + std::to_string(s.m) + " n " + std::to_string(s.n) + " density " +
                                    std::to_string(density));
      }
    }
  }
}

TEST(SparseInput, EpilogueAppliesScaleBiasActivationAndResidual) {
  for (int act = 0; act <= static_cast<int>(Activation::kSigmoid); ++act) {
    for (int parts = 0; parts < 4; ++parts) {
      Problem p(SparseInputWeights::kF32, {3, 75, 19, 0.4}, static_cast<unsigned>(act));
      p.epilogue.activation = static_cast<Activation>(act);
      p.epilogue.alpha = -0.75F;
      if ((parts & 1) != 0) p.epilogue.bias = p.bias.data();
      if ((parts & 2) != 0) p.epilogue.residual = p.residual.data();
      p.expect_all_variants_match("activation " + std::to_string(act));
    }
  }
}

TEST(SparseInput, WeightsOfZerosAreNotRead) {
  for (const auto& info : sparse_input_kernels(SparseInputWeights::kF32)) {
    if (!available_isas().contains(info.isa)) continue;
    Problem p(SparseInputWeights::kF32, {1, 40, 16, 1}, 3);
    p.x[1 + 5] = 0;
    for (size_t n = 0; n < 40; ++n) p.stored[n * 16 + 5] = __builtin_bit_cast(uint32_t, std::numeric_limits<float>::quiet_NaN());
    for (float y : p.run(*info.kernel, 1)) EXPECT_FALSE(std::isnan(y)) << info.name;
    p.x[1 + 6] = NAN;
    EXPECT_TRUE(std::isnan(p.run(*info.kernel, 1)[1])) << info.name;
  }
}

TEST(SparseInput, ListHoldsTheUnionOfRowsAndItsValues) {
  const float x[] = {0, 1, 0, 0, -2, /**/ 0, 3, -0.0F, 4, 0};
  int32_t ids[9];
  float values[18];
  int64_t active = 0;
  ASSERT_EQ(list_inputs(x, 5, 2, 5, ids, values, 9, &active), 4);
  EXPECT_EQ(active, 4);
  EXPECT_EQ(std::vector<int32_t>(ids, ids + 4), (std::vector<int32_t>{1, 3, 4, 4}));
  EXPECT_EQ(std::vector<float>(values, values + 4), (std::vector<float>{1, 0, -2, 0}));
  EXPECT_EQ(std::vector<float>(values + 9, values + 13), (std::vector<float>{3, 4, 0, 0}));
}

}  // namespace
}  // namespace sprun::kernels
