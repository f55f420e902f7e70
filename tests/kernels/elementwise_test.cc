// Every variant of the elementwise family against the scalar reference.
#include "kernels/elementwise/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace sprun::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kCanary = -12345.5F;
constexpr int64_t kGuard = 17;

struct MapCase {
  MapOp op;
  const char* name;
  double ulps, absolute;
};
constexpr MapCase kMapCases[] = {
#define SPRUN_MAP(enumerator, vector, reference, ulps, absolute) \
  {MapOp::enumerator, #enumerator, ulps, absolute},
#include "kernels/elementwise/map_ops.def"
};

// Numbers of every magnitude, many near the bends of the functions, and the special ones.
std::vector<float> interesting() {
  std::vector<float> x = {0.0F,  -0.0F,   kInf,     -kInf,  kNan,   1.0F,
                          -1.0F, 3.4e38F, -3.4e38F, 1e-40F, -1e-40F};
  std::mt19937 rng(11);
  for (const float range : {0.01F, 1.0F, 6.0F, 20.0F, 100.0F}) {
    std::uniform_real_distribution<float> uniform(-range, range);
    for (int i = 0; i < 2000; ++i) x.push_back(uniform(rng));
  }
  for (int e = -120; e < 120; e += 3) x.push_back(std::ldexp(e % 2 == 0 ? 1.3F : -1.7F, e));
  return x;
}

// n floats at an odd address between two guards.
class Guarded {
 public:
  explicit Guarded(int64_t n) : storage_(static_cast<size_t>(n + 2 * kGuard), kCanary), n_(n) {}
  float* data() { return storage_.data() + kGuard; }
  bool intact() const {
    for (int64_t i = 0; i < kGuard; ++i) {
      if (storage_[static_cast<size_t>(i)] != kCanary) return false;
      if (storage_[static_cast<size_t>(kGuard + n_ + i)] != kCanary) return false;
    }
    return true;
  }

 private:
  std::vector<float> storage_;
  int64_t n_;
};

class ElementwiseTest : public testing::TestWithParam<KernelInfo<ElementwiseKernel>> {
 protected:
  void SetUp() override {
    if (!available_isas().contains(GetParam().isa))
      GTEST_SKIP() << isa_name(GetParam().isa) << " is not available";
  }
  const ElementwiseKernel& kernel() const { return *GetParam().kernel; }
  const ElementwiseKernel& reference() const { return *elementwise_kernels().back().kernel; }
};

void expect_near(float got, float want, float x, double ulps, double absolute) {
  if (std::isnan(want)) {
    EXPECT_TRUE(std::isnan(got)) << "x = " << x << ", got " << got;
    return;
  }
  if (got == want) return;
  const double spacing =
      static_cast<double>(std::nextafter(std::fabs(want), kInf)) - std::fabs(want);
  // Denormal results may be flushed.
  const double allowed =
      std::max({(ulps + 0.5) * spacing, absolute * std::max(1.0, std::fabs(static_cast<double>(x))),
                1.2e-38});
  EXPECT_LE(std::fabs(static_cast<double>(got) - want), allowed)
      << "x = " << x << ", got " << got << ", want " << want;
}

TEST_P(ElementwiseTest, MapsAgreeWithTheReference) {
  const std::vector<float> x = interesting();
  const auto n = static_cast<int64_t>(x.size());
  std::vector<float> got(x.size()), want(x.size());
  for (const MapCase& c : kMapCases) {
    SCOPED_TRACE(c.name);
    kernel().map[static_cast<int>(c.op)](x.data(), got.data(), n, 0.25F, 0.5F);
    reference().map[static_cast<int>(c.op)](x.data(), want.data(), n, 0.25F, 0.5F);
    for (size_t i = 0; i < x.size() && !HasFailure(); ++i)
      expect_near(got[i], want[i], x[i], c.ulps, c.absolute);
  }
}

TEST_P(ElementwiseTest, MapsTouchOnlyTheirElementsAtEveryLength) {
  const std::vector<float> x = interesting();
  for (const MapCase& c : kMapCases) {
    SCOPED_TRACE(c.name);
    for (int64_t n = 0; n <= 67; ++n) {
      Guarded got(n), in_place(n);
      MapF32Fn* fn = kernel().map[static_cast<int>(c.op)];
      fn(x.data() + 20, got.data(), n, 0.25F, 0.5F);
      std::copy_n(x.data() + 20, n, in_place.data());
      fn(in_place.data(), in_place.data(), n, 0.25F, 0.5F);
      ASSERT_TRUE(got.intact() && in_place.intact()) << n;
      ASSERT_EQ(std::memcmp(got.data(), in_place.data(), static_cast<size_t>(4 * n)), 0) << n;
    }
  }
}

TEST_P(ElementwiseTest, ClipPrefersTheUpperBoundWhenBoundsCross) {
  const float x[] = {-3.0F, 0.0F, 3.0F, kNan};
  float y[4];
  kernel().map[static_cast<int>(MapOp::kClip)](x, y, 4, 2.0F, 1.0F);
  EXPECT_EQ(y[0], 1.0F);
  EXPECT_EQ(y[1], 1.0F);
  EXPECT_EQ(y[2], 1.0F);
  EXPECT_TRUE(std::isnan(y[3]));
}

TEST_P(ElementwiseTest, ArithmeticIsExactForEveryMixOfScalarsAndLengths) {
  const std::vector<float> x = interesting();
  for (int op = 0; op < static_cast<int>(BinaryOp::kCount); ++op) {
    for (const auto& [a_step, b_step] : {std::pair{1, 1}, {1, 0}, {0, 1}, {0, 0}}) {
      for (const int64_t n : {0, 1, 3, 4, 7, 8, 15, 16, 17, 33, 130}) {
        SCOPED_TRACE(testing::Message()
                     << "op " << op << " steps " << a_step << b_step << " n " << n);
        Guarded got(n);
        std::vector<float> want(static_cast<size_t>(n));
        kernel().binary[op](x.data() + 3, a_step, x.data() + 50, b_step, got.data(), n);
        reference().binary[op](x.data() + 3, a_step, x.data() + 50, b_step, want.data(), n);
        ASSERT_TRUE(got.intact());
        for (int64_t i = 0; i < n; ++i) {
          const float g = got.data()[i], w = want[static_cast<size_t>(i)];
          ASSERT_TRUE(g == w || (std::isnan(g) && std::isnan(w))) << i << ": " << g << " " << w;
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, BiasedGeluEqualsAddThenGelu) {
  const std::vector<float> x = interesting();
  for (const auto& [fn, op] : {std::pair{kernel().bias_gelu_erf, MapOp::kGeluErf},
                               std::pair{kernel().bias_gelu_tanh, MapOp::kGeluTanh}}) {
    for (const int64_t n : {0, 1, 5, 16, 35}) {
      Guarded got(n);
      std::vector<float> want(static_cast<size_t>(n));
      fn(x.data() + 100, x.data() + 200, got.data(), n);
      for (size_t i = 0; i < want.size(); ++i) want[i] = x[100 + i] + x[200 + i];
      kernel().map[static_cast<int>(op)](want.data(), want.data(), n, 0, 0);
      ASSERT_TRUE(got.intact());
      for (int64_t i = 0; i < n; ++i) ASSERT_EQ(got.data()[i], want[static_cast<size_t>(i)]);
    }
  }
}

TEST_P(ElementwiseTest, WideningEveryHalfIsExact) {
  std::vector<uint16_t> bits(65536);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<uint16_t>(i);
  std::vector<float> got(bits.size()), want(bits.size());
  for (const auto& [fn, ref] : {std::pair{kernel().f16_to_f32, reference().f16_to_f32},
                                std::pair{kernel().bf16_to_f32, reference().bf16_to_f32}}) {
    fn(bits.data(), got.data(), 65536);
    ref(bits.data(), want.data(), 65536);
    for (size_t i = 0; i < bits.size(); ++i) {
      ASSERT_TRUE(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]))) << i;
    }
  }
}

TEST_P(ElementwiseTest, NarrowingRoundsLikeTheReference) {
  std::vector<float> x = interesting();
  std::mt19937 rng(5);
  for (int i = 0; i < 100000; ++i) {  // any bit pattern
    const auto bits = static_cast<uint32_t>(rng());
    float v;
    std::memcpy(&v, &bits, 4);
    x.push_back(v);
  }
  const auto n = static_cast<int64_t>(x.size());
  for (const auto& [fn, ref, back] :
       {std::tuple{kernel().f32_to_f16, reference().f32_to_f16, reference().f16_to_f32},
        std::tuple{kernel().f32_to_bf16, reference().f32_to_bf16, reference().bf16_to_f32}}) {
    std::vector<uint16_t> got(x.size() + 1, 0xabcd), want(x.size());
    fn(x.data(), got.data(), n);
    ref(x.data(), want.data(), n);
    EXPECT_EQ(got.back(), 0xabcd);
    for (size_t i = 0; i < x.size(); ++i) {
      float g, w;
      back(&got[i], &g, 1);
      back(&want[i], &w, 1);
      ASSERT_TRUE(got[i] == want[i] || (std::isnan(g) && std::isnan(w))) << x[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, ElementwiseTest,
                         testing::ValuesIn(elementwise_kernels().begin(),
                                           elementwise_kernels().end()),
                         [](const auto& variant) { return std::string(variant.param.name); });

}  // namespace
}  // namespace sprun::kernels
