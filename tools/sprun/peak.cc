#include "tools/sprun/peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#include <fmt/format.h>

#include "kernels/isa.h"
#include "kernels/peak/peak.h"
#include "runtime/base/thread_pool.h"
#include "tools/sprun/stats.h"

namespace sprun::tools {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kIterations = 400000;  // 1 to 3 ms of instructions
constexpr int kRepeats = 12;
constexpr int64_t kBufferBytes = 192 << 20;  // more than a last-level cache holds
constexpr int kMemoryRepeats = 5;

// Best rate, in 1e9 units per second, of `work` done at once by every thread. work returns its
// amount.
double best_rate(ThreadPool& pool, int repeats, const std::function<double(int64_t part)>& work) {
  const int threads = pool.num_threads();
  double best = 0;
  for (int r = 0; r < repeats; ++r) {
    std::vector<double> done(static_cast<size_t>(threads), 0.0);
    const auto start = Clock::now();
    pool.parallel_for(threads, 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) done[static_cast<size_t>(t)] = work(t);
    });
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    double total = 0;
    for (double d : done) total += d;
    best = std::max(best, total / seconds * 1e-9);
  }
  return best;
}

double kernel_rate(ThreadPool& pool, kernels::PeakKind kind, kernels::IsaSet isas) {
  const kernels::PeakKernel* kernel = kernels::find_peak_kernel(kind, isas);
  if (kernel == nullptr) return 0;
  return best_rate(pool, kRepeats, [kernel](int64_t) { return kernel->fn(kIterations); });
}

double read_rate(ThreadPool& pool) {
  constexpr int64_t kWords = kBufferBytes / 8;
  const std::unique_ptr<uint64_t[]> buffer(new (std::nothrow) uint64_t[kWords]);
  if (!buffer) return 0;
  std::memset(buffer.get(), 1, kBufferBytes);  // pages must exist
  const int64_t threads = pool.num_threads();
  std::atomic<uint64_t> sink{0};
  return best_rate(pool, kMemoryRepeats, [&](int64_t part) {
    const int64_t begin = kWords * part / threads, end = kWords * (part + 1) / threads;
    uint64_t sum[8] = {};
    int64_t i = begin;
    for (; i + 8 <= end; i += 8) {
      for (int64_t lane = 0; lane < 8; ++lane) sum[lane] += buffer[static_cast<size_t>(i + lane)];
    }
    uint64_t total = 0;
    for (uint64_t s : sum) total += s;
    sink.fetch_add(total, std::memory_order_relaxed);
    return static_cast<double>(i - begin) * 8;
  });
}

}  // namespace

PeakRates measure_peak(int threads) {
  const kernels::IsaSet isas = kernels::available_isas();
  ThreadPool pool(threads);
  PeakRates peak{.threads = pool.num_threads()};
  peak.f32_gflops = kernel_rate(pool, kernels::PeakKind::kF32, isas);
  peak.bf16_gflops = kernel_rate(pool, kernels::PeakKind::kBf16, isas);
  peak.int8_gops = kernel_rate(pool, kernels::PeakKind::kInt8, isas);
  peak.read_gbytes = read_rate(pool);
  return peak;
}

nlohmann::ordered_json to_json(const PeakRates& peak) {
  nlohmann::ordered_json json = {{"threads", peak.threads},
                                 {"f32_gflops", round3(peak.f32_gflops)}};
  json["bf16_gflops"] =
      peak.bf16_gflops > 0 ? nlohmann::ordered_json(round3(peak.bf16_gflops)) : nullptr;
  json["int8_gops"] = round3(peak.int8_gops);
  json["read_gbytes_per_s"] = round3(peak.read_gbytes);
  return json;
}

std::string to_text(const PeakRates& peak) {
  return fmt::format(
      "{} thread{}: f32 {:.0f} GFLOP/s, bf16 {}, int8 {:.0f} GOP/s, memory {:.1f} GB/s",
      peak.threads, peak.threads == 1 ? "" : "s", peak.f32_gflops,
      peak.bf16_gflops > 0 ? fmt::format("{:.0f} GFLOP/s", peak.bf16_gflops) : "none",
      peak.int8_gops, peak.read_gbytes);
}

}  // namespace sprun::tools
