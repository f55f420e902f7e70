// f32 convolutions of real networks, on every variant of this machine, one thread:
//   sprun_kernels_bench --benchmark_filter=conv
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/conv/conv.h"

namespace sprun::kernels {
namespace {

struct Case {
  const char* name;
  int64_t in_channels, out_channels, groups;
  ConvAxis height, width;
};

// in, out, kernel, stride, dilation, pad_begin
constexpr Case kCases[] = {
    {"vit_patch_16", 3, 768, 1, {224, 14, 16, 16, 1, 0}, {224, 14, 16, 16, 1, 0}},
    {"whisper_conv1", 80, 384, 1, {}, {3000, 3000, 3, 1, 1, 1}},
    {"whisper_conv2", 384, 384, 1, {}, {3000, 1500, 3, 2, 1, 1}},
    {"ocr_stem", 3, 16, 1, {48, 24, 3, 2, 1, 1}, {320, 160, 3, 2, 1, 1}},
    {"ocr_pointwise_32", 16, 32, 1, {24, 24}, {160, 160}},
    {"ocr_pointwise_240", 240, 240, 1, {12, 12}, {80, 80}},
    {"ocr_pointwise_480", 480, 480, 1, {3, 3}, {80, 80}},
    {"ocr_depthwise_3", 64, 64, 64, {24, 24, 3, 1, 1, 1}, {160, 160, 3, 1, 1, 1}},
    {"ocr_depthwise_5", 240, 240, 240, {12, 12, 5, 1, 1, 2}, {80, 80, 5, 1, 1, 2}},
    {"ocr_depthwise_5_down", 480, 480, 480, {6, 3, 5, 2, 1, 2}, {80, 80, 5, 1, 1, 2}},
    {"ocr_squeeze", 480, 120, 1, {}, {}},
    {"resnet_3x3", 64, 64, 1, {56, 56, 3, 1, 1, 1}, {56, 56, 3, 1, 1, 1}},
    {"convnext_7x7", 384, 384, 384, {14, 14, 7, 1, 1, 3}, {14, 14, 7, 1, 1, 3}},
    {"conformer_31", 256, 256, 256, {}, {500, 500, 31, 1, 1, 15}},
};

void conv_f32(benchmark::State& state) {
  const auto& info = conv_f32_kernels()[static_cast<size_t>(state.range(0))];
  const Case& c = kCases[state.range(1)];
  if (!available_isas().contains(info.isa)) return state.SkipWithError("cannot run here");
  ConvArgs args;
  args.shape = {1, c.in_channels, c.out_channels, c.groups, {{}, c.height, c.width}};
  args.epilogue = {ConvActivation::kHardSwish, 1.0F / 6.0F, 0.5F};
  const ConvShape& s = args.shape;
  const auto zeros = [](int64_t n) { return std::vector<float>(static_cast<size_t>(n), 0.5F); };
  const std::vector<float> x = zeros(s.in_channels * s.in_size());
  const std::vector<float> w = zeros(s.out_channels * s.depth()), bias = zeros(s.out_channels);
  std::vector<float> y = zeros(s.out_channels * s.out_size());
  args.x = x.data();
  args.w = w.data();
  args.bias = bias.data();
  args.y = y.data();
  const ConvPlan plan = plan_conv(*info.kernel, s, 1);
  const auto bytes = static_cast<size_t>(plan.scratch_bytes + 64);
  const std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(64, bytes / 64 * 64),
                                                       std::free);
  for (auto _ : state) {
    conv_f32(plan, args, scratch.get(), [](int64_t n, int64_t, const auto& fn) { fn(0, n, 0); });
    benchmark::ClobberMemory();
  }
  state.SetLabel(std::string(c.name) + " " + std::string(info.name) + "/" +
                 method_name(plan.method));
  const double flops =
      2.0 * static_cast<double>(s.out_channels * s.out_size()) * static_cast<double>(s.depth());
  state.counters["FLOP/s"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                                benchmark::Counter::kIsRate);
}

// The scalar reference is left out: it takes seconds.
void variants(benchmark::internal::Benchmark* b) {
  for (size_t c = 0; c < std::size(kCases); ++c) {
    for (size_t k = 0; k + 1 < conv_f32_kernels().size(); ++k) {
      b->Args({static_cast<int64_t>(k), static_cast<int64_t>(c)});
    }
  }
}

BENCHMARK(conv_f32)->Apply(variants);

}  // namespace
}  // namespace sprun::kernels
