// Products of f32 activations with 8- and 16-bit weights: every variant against the scalar reference.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/simd/half.h"
#include "tests/support/serial_parallel_for.h"

namespace sprun::kernels {
namespace {

using testing_support::SerialParallelFor;

constexpr float kCanary = -12345.5F;

unsigned seed() {
  const char* env = std::getenv("SPRUN_TEST_SEED");
  return env == nullptr ? 20240607U : static_cast<unsigned>(std::strtoul(env, nullptr, 10));
}

enum class Type { kS8, kU8, kF16, kBf16 };
constexpr Type kTypes[] = {Type::kS8, Type::kU8, Type::kF16, Type::kBf16};

std::span<const KernelInfo<GemmNarrowKernel>> kernels_of(Type type) {
  if (type == Type::kF16) return gemm_f32f16_kernels();
  return type == Type::kBf16 ? gemm_f32bf16_kernels() : gemm_f32s8_kernels();
}

bool is_byte(Type type) { return type == Type::kS8 || type == Type::kU8; }

struct Size {
  int64_t m, n, k, block;  // block 0: none
};
// Around the register tiles, whole chunks of K and the rows from which chunks are widened.
const Size kSizes[] = {{1, 1, 1, 0},      {1, 33, 5, 4},    {2, 31, 2, 0},   {3, 32, 3, 1},     {4, 64, 64, 32},
                       {5, 7, 130, 16},   {11, 65, 17, 0},  {12, 32, 31, 8}, {13, 40, 33, 32},  {25, 16, 9, 64},
                       {27, 97, 53, 7},   {1, 8, 1031, 0},  {6, 48, 775, 5}, {29, 35, 1537, 0}, {50, 37, 1601, 128},
                       {150, 9, 900, 32}, {30, 70, 769, 0}, {2, 5, 0, 0},    {3, 5, 0, 16}};

template <class T>
std::vector<T> transposed(const std::vector<T>& w, int64_t n, int64_t k) {
  std::vector<T> out(w.size());
  for (int64_t i = 0; i < n * k; ++i) out[static_cast<size_t>(i % k * n + i / k)] = w[static_cast<size_t>(i)];
  return out;
}

// Stored weights, scales and zero points; every operand with gaps of its own.
struct Problem {
  Type type;
  Size size;
  int64_t ldx, ldy, ldr;
  std::vector<float> x, scale, block_scale, block_zero, bias, residual;
  std::vector<uint8_t> bytes;
  std::vector<uint16_t> halves;
  Epilogue epilogue;

  Problem(Type t, Size s, unsigned salt) : type(t), size(s), ldx(s.k + 3), ldy(s.n + 5), ldr(s.n + 2) {
    std::mt19937 rng(seed() + salt);
    const auto floats = [&](int64_t count, float low, float high) {
      std::uniform_real_distribution<float> uniform(low, high);
      std::vector<float> v(static_cast<size_t>(count));
      for (float& f : v) f = uniform(rng);
      return v;
    };
    x = floats(s.m * ldx + 1, -1, 1);
    for (int64_t m = 0; m < s.m; ++m) {  // a kernel that uses the gap of X produces NaN
      for (int64_t i = s.k; i < ldx; ++i) x[static_cast<size_t>(1 + m * ldx + i)] = NAN;
    }
    const int64_t blocks = s.block == 0 ? 0 : (s.k + s.block - 1) / s.block;
    scale = floats(s.n, 0.001F, 0.01F);
    block_scale = floats(s.n * blocks, 0.001F, 0.01F);
    block_zero = floats(s.n * blocks, -20, 20);
    for (float& z : block_zero) z = std::round(z);
    bias = floats(s.n, -1, 1);
    residual = floats(s.m * ldr, -1, 1);
    for (int64_t i = 0; i < s.n * s.k; ++i) {
      bytes.push_back(static_cast<uint8_t>(rng()));
      const float value = static_cast<float>(static_cast<int8_t>(bytes.back())) * 0.01F;
      halves.push_back(t == Type::kF16 ? simd::f32_to_f16(value) : simd::f32_to_bf16(value));
    }
    epilogue.ld_residual = ldr;
  }

  std::vector<float> run(const GemmNarrowKernel& kernel, bool turned, int workers) const {
    const auto [m, n, k, block] = size;
    const int64_t nr = kernel.nr, panels = num_panels(n, nr);
    std::vector<uint8_t> packed8(static_cast<size_t>(panels * nr * k), 0xee);
    std::vector<uint16_t> packed16(static_cast<size_t>(panels * nr * k), 0x7fff);
    if (is_byte(type)) {
      const std::vector<uint8_t> stored = turned ? transposed(bytes, n, k) : bytes;
      pack_narrow({stored.data(), n, k, turned ? 1 : k, turned ? n : 1}, nr, 0, panels,
                  static_cast<uint8_t>(type == Type::kU8 ? 0x80 : 0), packed8.data());
    } else {
      const std::vector<uint16_t> stored = turned ? transposed(halves, n, k) : halves;
      pack_narrow({stored.data(), n, k, turned ? 1 : k, turned ? n : 1}, nr, 0, panels, 0, packed16.data());
    }
    const int64_t blocks = block == 0 ? 0 : (k + block - 1) / block;
    std::vector<float> params(static_cast<size_t>(panels * nr * blocks * 2) + 1);
    for (int64_t i = 0; i < n * blocks; ++i) {
      const int64_t out = i / blocks, at = ((out / nr * blocks + i % blocks) * 2) * nr + out % nr;
      const auto from = static_cast<size_t>(i);
      params[static_cast<size_t>(at)] = block_scale[from];
      params[static_cast<size_t>(at + nr)] = -block_zero[from] * block_scale[from];
    }
    std::vector<float> scales = scale;
    scales.resize(static_cast<size_t>(panels * nr));
    std::vector<float> y(static_cast<size_t>(m * ldy + 1), kCanary);
    void* scratch = std::aligned_alloc(64, static_cast<size_t>(gemm_scratch_bytes(kernel, workers) + 64));
    GemmNarrowArgs args;
    args.m = m, args.n = n, args.k = k;
    args.x = x.data() + 1, args.ldx = ldx;
    args.w = is_byte(type) ? static_cast<const void*>(packed8.data()) : packed16.data();
    const bool blocked = is_byte(type) && block > 0;
    if (blocked) args.block_params = params.data(), args.block_size = block;
    if (is_byte(type) && !blocked) args.scale = scales.data();
    args.y = y.data() + 1, args.ldy = ldy;
    args.epilogue = epilogue;
    gemm_narrow(kernel, args, is_byte(type) ? 1 : 2, workers, scratch, SerialParallelFor{workers});
    std::free(scratch);
    return y;
  }

  void expect_all_variants_match(const std::string& what) const {
    const std::vector<float> want = run(*kernels_of(type).back().kernel, false, 1);
    for (const auto& info : kernels_of(type)) {
      if (!available_isas().contains(info.isa)) continue;
      for (bool turned : {false, true}) {
        const std::vector<float> got = run(*info.kernel, turned, turned ? 3 : 1);
        for (size_t i = 1; i < got.size(); ++i) {
          const bool gap = static_cast<int64_t>(i - 1) % ldy >= size.n;
          if (gap) ASSERT_EQ(got[i], kCanary) << info.name << " wrote into a gap, " << what;
          else ASSERT_NEAR(got[i], want[i], bound()) << info.name << " at " << i - 1 << ", " << what << " seed " << seed();
        }
      }
    }
  }

  // |x| <= 1, |W| <= 1.5 with all scales here.
  double bound() const { return 1.2e-7 * (static_cast<double>(size.k) + 1) * 1.5 * 2 + 3e-6; }
};

TEST(GemmNarrow, EveryVariantMatchesTheReference) {
  unsigned salt = 0;
  for (const Size& s : kSizes) {
    for (Type type : kTypes) {
      const Problem p(type, s, ++salt);
      p.expect_all_variants_match("m " + std::to_string(s.m) + " n " + std::to_string(s.n) + " k " +
                                  std::to_string(s.k) + " block " + std::to_string(s.block));
    }
  }
}

TEST(GemmNarrow, EveryRowCountUpToTwoTilesMatches) {
  for (int64_t m = 1; m <= 26; ++m) {
    for (int64_t block : {0, 8}) {
      Problem(Type::kS8, {m, 33, 21, block}, static_cast<unsigned>(m)).expect_all_variants_match(std::to_string(m));
    }
  }
}

TEST(GemmNarrow, EpilogueAppliesScaleBiasActivationAndResidual) {
  for (int act = 0; act <= static_cast<int>(Activation::kSigmoid); ++act) {
    for (int parts = 0; parts < 4; ++parts) {
      for (int64_t block : {0, 32}) {
        Problem p(Type::kS8, {14, 75, 49, block}, static_cast<unsigned>(act));
        p.epilogue.activation = static_cast<Activation>(act);
        p.epilogue.alpha = -0.75F;
        if ((parts & 1) != 0) p.epilogue.bias = p.bias.data();
        if ((parts & 2) != 0) p.epilogue.residual = p.residual.data();
        p.expect_all_variants_match("activation " + std::to_string(act));
      }
    }
  }
}

TEST(GemmNarrow, BytesOfBothSignsAreExact) {
  // One input: y = x * (q - zero) * scale, so every code shows.
  for (Type type : {Type::kS8, Type::kU8}) {
    for (const auto& info : gemm_f32s8_kernels()) {
      if (!available_isas().contains(info.isa)) continue;
      Problem p(type, {2, 256, 1, 0}, 7);
      for (size_t i = 0; i < 256; ++i) p.bytes[i] = static_cast<uint8_t>(i), p.scale[i] = 1;
      p.x[1] = 1, p.x[1 + static_cast<size_t>(p.ldx)] = -2;
      const std::vector<float> y = p.run(*info.kernel, false, 1);
      for (int i = 0; i < 256; ++i) {
        const int code = type == Type::kU8 ? i - 128 : static_cast<int>(static_cast<int8_t>(i));
        EXPECT_EQ(y[static_cast<size_t>(1 + i)], static_cast<float>(code)) << info.name;
        EXPECT_EQ(y[static_cast<size_t>(1 + p.ldy + i)], static_cast<float>(-2 * code)) << info.name;
      }
    }
  }
}

TEST(GemmNarrow, NanAndInfinityOfXReachTheirRowOnly) {
  for (const auto& info : gemm_f32s8_kernels()) {
    if (!available_isas().contains(info.isa)) continue;
    Problem p(Type::kS8, {15, 34, 8, 0}, 3);
    for (uint8_t& b : p.bytes) b = static_cast<uint8_t>(b | 1);
    p.x[static_cast<size_t>(1 + 4 * p.ldx + 2)] = std::numeric_limits<float>::quiet_NaN();
    p.x[static_cast<size_t>(1 + 9 * p.ldx + 7)] = std::numeric_limits<float>::infinity();
    const std::vector<float> y = p.run(*info.kernel, false, 1);
    for (int64_t m = 0; m < 15; ++m) {
      for (int64_t n = 0; n < 34; ++n) {
        const float v = y[static_cast<size_t>(1 + m * p.ldy + n)];
        EXPECT_EQ(std::isnan(v), m == 4) << info.name;
        EXPECT_EQ(std::isinf(v), m == 9) << info.name;
      }
    }
  }
}

}  // namespace
}  // namespace sprun::kernels
