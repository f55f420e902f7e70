// Row normalisation on every variant of this machine, one thread:
//   sprun_kernels_bench --benchmark_filter=norm
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "kernels/norm/norm.h"

namespace sprun::kernels {
namespace {

struct Case {
  const char* name;
  int64_t rows, n;
  bool residual, rms;
};

constexpr Case kCases[] = {{"layer_norm", 128, 768, false, false},
                           {"skip_layer_norm", 128, 768, true, false},
                           {"layer_norm_small", 32, 256, false, false},
                           {"rms_norm", 128, 2048, false, true},
                           {"rms_norm_decode", 1, 2048, true, true}};

void row_norm(benchmark::State& state) {
  const auto& info = row_norm_kernels()[static_cast<size_t>(state.range(0))];
  const Case& c = kCases[state.range(1)];
  if (!available_isas().contains(info.isa)) return state.SkipWithError("cannot run here");
  const auto size = static_cast<size_t>(c.rows * c.n);
  const std::vector<float> x(size, 0.5F), residual(size, 0.25F),
      gamma(static_cast<size_t>(c.n), 1.0F);
  std::vector<float> y(size), sum(size);
  const RowNormArgs args{.x = x.data(),
                         .residual = c.residual ? residual.data() : nullptr,
                         .gamma = gamma.data(),
                         .beta = c.rms ? nullptr : gamma.data(),
                         .y = y.data(),
                         .sum = c.residual ? sum.data() : nullptr,
                         .n = c.n,
                         .residual_rows = c.rows,
                         .epsilon = 1e-5F};
  for (auto _ : state) {
    (c.rms ? info.kernel->rms_norm : info.kernel->layer_norm)(args, 0, c.rows);
    benchmark::ClobberMemory();
  }
  state.SetLabel(std::string(c.name) + " " + std::string(info.name));
  state.SetBytesProcessed(state.iterations() * c.rows * c.n * (c.residual ? 16 : 8));
}

void variants(benchmark::internal::Benchmark* b) {
  for (size_t c = 0; c < std::size(kCases); ++c) {
    for (size_t k = 0; k < row_norm_kernels().size(); ++k) {
      b->Args({static_cast<int64_t>(k), static_cast<int64_t>(c)});
    }
  }
}

BENCHMARK(row_norm)->Apply(variants);

}  // namespace
}  // namespace sprun::kernels
