// Every f32 convolution variant of this machine against the scalar reference, by each method that
// serves the shape.
#include "kernels/conv/conv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "tests/support/draw.h"
#include "tests/support/serial_parallel_for.h"

namespace sprun::kernels {
namespace {

using testing_support::kCanary;
using testing_support::SerialParallelFor;

constexpr int64_t kGuard = 32;  // canaries on either side of the output

unsigned seed() { return testing_support::seed_or(20240607U); }

struct Axis {
  int64_t in, kernel = 1, stride = 1, dilation = 1, pad_begin = 0, pad_end = 0;
};

struct Case {
  const char* name;
  int64_t batch, in_channels, out_channels, groups;
  Axis depth{1}, height{1}, width{1};
};

ConvAxis make_axis(const Axis& a) {
  const int64_t out =
      (a.in + a.pad_begin + a.pad_end - ((a.kernel - 1) * a.dilation + 1)) / a.stride + 1;
  return {a.in, out, a.kernel, a.stride, a.dilation, a.pad_begin};
}

ConvShape make_shape(const Case& c) {
  ConvShape s;
  s.batch = c.batch;
  s.in_channels = c.in_channels;
  s.out_channels = c.out_channels;
  s.groups = c.groups;
  s.axis[0] = make_axis(c.depth);
  s.axis[1] = make_axis(c.height);
  s.axis[2] = make_axis(c.width);
  return s;
}

const Case kCases[] = {
    {"pointwise", 1, 5, 7, 1, {1}, {6}, {9}},
    {"pointwise_exact_panels", 1, 16, 24, 1, {1}, {8}, {16}},
    {"pointwise_page_stride", 1, 12, 13, 1, {1}, {32}, {32}},
    {"pointwise_batch", 3, 3, 1, 1, {1}, {5}, {5}},
    {"pointwise_one_position", 2, 70, 11, 1, {1}, {1}, {1}},
    {"pointwise_five_positions", 1, 33, 5, 1, {1}, {1}, {5}},
    {"many_channels", 1, 700, 50, 1, {1}, {3}, {11}},
    {"square", 1, 3, 16, 1, {1}, {13, 3, 1, 1, 1, 1}, {37, 3, 1, 1, 1, 1}},
    {"square_stride", 2, 3, 8, 1, {1}, {14, 3, 2, 1, 1, 1}, {67, 3, 2, 1, 1, 1}},
    {"stride_no_pad", 1, 2, 3, 1, {1}, {9, 2, 2}, {70, 2, 2}},
    {"patches", 1, 3, 20, 1, {1}, {32, 16, 16}, {48, 16, 16}},
    {"stride_three", 1, 2, 5, 1, {1}, {1}, {100, 5, 3, 1, 2, 2}},
    {"dilated", 1, 4, 6, 1, {1}, {17, 3, 1, 2, 2, 2}, {41, 3, 1, 3, 3, 3}},
    {"line", 1, 20, 30, 1, {1}, {1}, {100, 3, 1, 1, 1, 1}},
    {"line_stride", 1, 30, 20, 1, {1}, {1}, {101, 3, 2, 1, 1, 1}},
    {"causal_line", 2, 4, 4, 1, {1}, {1}, {50, 4, 1, 1, 3, 0}},
    {"uneven_pads", 1, 2, 4, 1, {1}, {7, 4, 1, 1, 3, 0}, {19, 5, 1, 1, 0, 4}},
    {"padding_only_windows", 1, 2, 3, 1, {1}, {2, 1, 1, 1, 3, 2}, {3, 1, 1, 1, 40, 40}},
    {"volume", 1, 2, 4, 1, {5, 3, 1, 1, 1, 1}, {6, 3, 2, 1, 1, 1}, {18, 3, 1, 1, 1, 1}},
    {"groups", 2, 6, 9, 3, {1}, {8, 3, 1, 1, 1, 1}, {21, 3, 1, 1, 1, 1}},
    {"groups_dot", 1, 96, 30, 3, {1}, {1}, {2}},
    {"whole_image_kernel", 1, 6, 5, 1, {1}, {7, 7}, {7, 7}},
    {"depthwise_3x3", 1, 5, 5, 5, {1}, {11, 3, 1, 1, 1, 1}, {33, 3, 1, 1, 1, 1}},
    {"depthwise_3x3_down", 1, 3, 3, 3, {1}, {12, 3, 2, 1, 1, 1}, {40, 3, 1, 1, 1, 1}},
    {"depthwise_3x3_across", 1, 3, 3, 3, {1}, {9, 3, 1, 1, 1, 1}, {40, 3, 2, 1, 1, 1}},
    {"depthwise_3x3_stride", 2, 3, 3, 3, {1}, {15, 3, 2, 1, 1, 1}, {31, 3, 2, 1, 1, 1}},
    {"depthwise_5x5", 1, 4, 4, 4, {1}, {7, 5, 1, 1, 2, 2}, {80, 5, 1, 1, 2, 2}},
    {"depthwise_5x5_stride", 1, 4, 4, 4, {1}, {14, 5, 2, 1, 2, 2}, {29, 5, 2, 1, 2, 2}},
    {"depthwise_5x5_down", 1, 2, 2, 2, {1}, {6, 5, 2, 1, 2, 2}, {80, 5, 1, 1, 2, 2}},
    {"depthwise_5x5_across", 1, 2, 2, 2, {1}, {6, 5, 1, 1, 2, 2}, {21, 5, 2, 1, 1, 2}},
    {"depthwise_7x7", 1, 3, 3, 3, {1}, {14, 7, 1, 1, 3, 3}, {14, 7, 1, 1, 3, 3}},
    {"depthwise_line", 1, 6, 6, 6, {1}, {1}, {77, 31, 1, 1, 15, 15}},
    {"depthwise_causal", 2, 4, 4, 4, {1}, {1}, {9, 3, 1, 1, 2, 0}},
    {"depthwise_dilated", 1, 3, 3, 3, {1}, {17, 3, 1, 4, 4, 4}, {20, 3, 3, 2, 2, 2}},
    {"depthwise_multiplier", 1, 3, 6, 3, {1}, {9, 3, 1, 1, 1, 1}, {10, 3, 1, 1, 1, 1}},
    {"depthwise_volume", 1, 2, 2, 2, {4, 3, 1, 1, 1, 1}, {5, 3, 1, 1, 1, 1}, {18, 3, 1, 1, 1, 1}},
    {"depthwise_wide_image", 1, 1, 1, 1, {1}, {40, 3, 1, 1, 1, 1}, {700, 3, 1, 1, 1, 1}},
    {"depthwise_no_pad", 1, 2, 2, 2, {1}, {5, 5}, {20, 5}},
};

// Data of one problem. Buffers start at an odd address and end with the last element that may be
// read.
struct Data {
  explicit Data(const ConvShape& s, bool with_bias, bool with_residual) : rng(seed()) {
    x = floats(s.batch * s.in_channels * s.in_size());
    w = floats(s.out_channels * s.depth());
    if (with_bias) bias = floats(s.out_channels);
    outputs = s.batch * s.out_channels * s.out_size();
    if (with_residual) residual = floats(outputs);
    y.assign(static_cast<size_t>(outputs + 2 * kGuard), kCanary);
  }
  std::vector<float> floats(int64_t n) {
    std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
    std::vector<float> v(static_cast<size_t>(n + 1));
    for (float& f : v) f = uniform(rng);
    return v;
  }
  ConvArgs args(const ConvShape& s, const ConvEpilogue& e) {
    const auto start = [](const std::vector<float>& v) {
      return v.empty() ? nullptr : v.data() + 1;
    };
    return {s, start(x), start(w), start(bias), start(residual), y.data() + kGuard, e};
  }
  bool guards_intact() const {
    return std::all_of(y.begin(), y.begin() + kGuard, [](float f) { return f == kCanary; }) &&
           std::all_of(y.end() - kGuard, y.end(), [](float f) { return f == kCanary; });
  }
  std::mt19937 rng;
  std::vector<float> x, w, bias, residual, y;
  int64_t outputs = 0;
};

// 64-byte aligned scratch that notices writes past its end.
struct Scratch {
  explicit Scratch(int64_t bytes)
      : count(bytes / 4), storage(static_cast<size_t>(count + 16 + kGuard), kCanary) {
    const auto address = reinterpret_cast<uintptr_t>(storage.data());
    base = storage.data() + (64 - address % 64) % 64 / 4;
  }
  bool intact() const {
    return std::all_of(base + count, base + count + 16, [](float f) { return f == kCanary; });
  }
  int64_t count;
  std::vector<float> storage;
  float* base;
};

std::vector<float> run(const ConvPlan& plan, const ConvShape& s, const ConvEpilogue& e, bool extras,
                       int workers) {
  Data data(s, extras, extras);
  Scratch scratch(plan.scratch_bytes);
  conv_f32(plan, data.args(s, e), scratch.base, SerialParallelFor{workers});
  EXPECT_TRUE(data.guards_intact());
  EXPECT_TRUE(scratch.intact());
  return {data.y.begin() + kGuard, data.y.end() - kGuard};
}

void expect_near(const std::vector<float>& got, const std::vector<float>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  size_t worst = 0;
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    if (d > error || std::isnan(d)) {
      error = d;
      worst = i;
    }
  }
  EXPECT_LE(error, tolerance) << "at " << worst << " got " << got[worst] << " want " << want[worst]
                              << " seed " << seed();
}

const ConvKernel& reference() { return *conv_f32_kernels().back().kernel; }

double tolerance(const ConvShape& s) {
  return 1.2e-7 * static_cast<double>(s.depth() + 1) * 2 + 2e-6;
}

class ConvVariant : public testing::TestWithParam<size_t> {
 protected:
  void SetUp() override {
    if (!available_isas().contains(info().isa)) GTEST_SKIP() << info().name << " cannot run here";
  }
  const KernelInfo<ConvKernel>& info() const { return conv_f32_kernels()[GetParam()]; }
};

TEST_P(ConvVariant, AgreesWithTheReferenceOnEveryShape) {
  for (const Case& c : kCases) {
    for (int workers : {1, 3}) {
      SCOPED_TRACE(std::string(c.name) + " workers " + std::to_string(workers));
      const ConvShape s = make_shape(c);
      const ConvEpilogue e;
      const std::vector<float> want = run(plan_conv(reference(), s, 1), s, e, true, 1);
      expect_near(run(plan_conv(*info().kernel, s, workers), s, e, true, workers), want,
                  tolerance(s));
    }
  }
}

TEST_P(ConvVariant, ServesEveryShapeAsMatrixProduct) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    const ConvShape s = make_shape(c);
    const ConvEpilogue e;
    ConvPlan plan = plan_conv(*info().kernel, s, 1);
    const int64_t panels = (s.out_size() + info().kernel->nr - 1) / info().kernel->nr;
    plan.method = ConvMethod::kGemm;
    plan.tiling = {
        .block_panels = std::min<int64_t>(2, panels), .blocks = (panels + 1) / 2, .row_parts = 2};
    if (panels == 1) plan.tiling.blocks = 1;
    plan.units = s.batch * s.groups * plan.tiling.blocks * 2;
    plan.grain = plan.units;
    plan.scratch_bytes = (info().kernel->gemm_scratch(s, plan.tiling) + 15) / 16 * 64;
    expect_near(run(plan, s, e, false, 1), run(plan_conv(reference(), s, 1), s, e, false, 1),
                tolerance(s));
  }
}

TEST_P(ConvVariant, AppliesEveryActivation) {
  constexpr ConvActivation kAll[] = {ConvActivation::kNone,        ConvActivation::kRelu,
                                     ConvActivation::kClip,        ConvActivation::kLeakyRelu,
                                     ConvActivation::kHardSigmoid, ConvActivation::kHardSwish,
                                     ConvActivation::kSigmoid,     ConvActivation::kSilu,
                                     ConvActivation::kTanh,        ConvActivation::kGelu};
  const Case cases[] = {{"gemm", 1, 4, 5, 1, {1}, {5}, {9}},
                        {"depthwise", 1, 4, 4, 4, {1}, {5, 3, 1, 1, 1, 1}, {9, 3, 1, 1, 1, 1}},
                        {"dot", 1, 40, 7, 1, {1}, {1}, {3}}};
  for (const Case& c : cases) {
    for (ConvActivation activation : kAll) {
      SCOPED_TRACE(std::string(c.name) + " activation " +
                   std::to_string(static_cast<int>(activation)));
      const ConvShape s = make_shape(c);
      const ConvEpilogue e{activation, -0.3F, 0.6F, 1.5F, -0.25F};
      expect_near(run(plan_conv(*info().kernel, s, 1), s, e, true, 1),
                  run(plan_conv(reference(), s, 1), s, e, true, 1), 4 * tolerance(s));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, ConvVariant, testing::Range<size_t>(0, conv_f32_kernels().size()),
                         [](const auto& test) {
                           return std::string(conv_f32_kernels()[test.param].name);
                         });

TEST(ConvPlan, ChoosesTheMethodByShape) {
  const auto method = [](const Case& c) {
    return plan_conv(*conv_f32_kernels()[0].kernel, make_shape(c), 2).method;
  };
  EXPECT_EQ(method({"", 1, 64, 64, 1, {1}, {10}, {10}}), ConvMethod::kGemm);
  EXPECT_EQ(method({"", 1, 64, 64, 64, {1}, {10, 3, 1, 1, 1, 1}, {10, 3, 1, 1, 1, 1}}),
            ConvMethod::kDepthwise);
  EXPECT_EQ(method({"", 1, 64, 64, 1, {1}, {1}, {1}}), ConvMethod::kDot);
  // A kernel spread over far more than an image is no case for row buffers.
  EXPECT_EQ(method({"", 1, 4, 4, 4, {1}, {1}, {8, 2, 1, 1 << 20, 1 << 20, 1 << 20}}),
            ConvMethod::kGemm);
}

TEST(ConvPlan, GivesEveryWorkerUnits) {
  const ConvPlan plan =
      plan_conv(*conv_f32_kernels()[0].kernel, make_shape({"", 1, 480, 480, 1, {1}, {1}, {40}}), 2);
  EXPECT_GE(plan.units, 4);
  const ConvPlan none =
      plan_conv(*conv_f32_kernels()[0].kernel, make_shape({"", 0, 4, 4, 1, {1}, {5}, {5}}), 2);
  EXPECT_EQ(none.units, 0);
}

}  // namespace
}  // namespace sprun::kernels
