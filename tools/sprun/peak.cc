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
constexpr int64_t kBufferBytes = 192 << 20;  // three times more than a last-level cache holds
constexpr int kMemoryRepeats = 15;

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

double read_rate(int threads) {
  auto reader = MemoryReader::create(threads);
  double best = 0;
  for (int i = 0; i < kMemoryRepeats && reader.ok(); ++i) best = std::max(best, reader->read());
  return best;
}

uint64_t sum_of(const uint64_t* words, int64_t count) {
  constexpr int64_t kAhead = 4096 / 8;  // measured on Zen 5: 10 % faster than without, 8 KiB and more are slower
  uint64_t sum[8] = {};
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    __builtin_prefetch(words + i + kAhead);
    for (int64_t lane = 0; lane < 8; ++lane) sum[lane] += words[i + lane];
  }
  uint64_t total = 0;
  for (uint64_t s : sum) total += s;
  return total;
}

}  // namespace

Result<MemoryReader> MemoryReader::create(int threads) {
  MemoryReader reader;
  reader.pool_ = std::make_unique<ThreadPool>(threads);
  SPRUN_ASSIGN(reader.buffer_, allocate_blob(kBufferBytes));
  std::memset(reader.buffer_.data.get(), 1, kBufferBytes);  // pages must exist
  return reader;
}

double MemoryReader::read() {
  constexpr int64_t kParts = 3, kWords = kBufferBytes / 8 / kParts;
  const auto* words = static_cast<const uint64_t*>(buffer_.data.get()) + kWords * (next_++ % kParts);
  const int64_t threads = pool_->num_threads();
  std::atomic<uint64_t> sink{0};
  const auto start = Clock::now();
  pool_->parallel_for(threads, 1, [&](int64_t part, int64_t end, int) {
    for (; part < end; ++part) {
      const int64_t first = kWords * part / threads;
      sink.fetch_add(sum_of(words + first, kWords * (part + 1) / threads - first), std::memory_order_relaxed);
    }
  });
  return static_cast<double>(kWords) * 8 / std::chrono::duration<double>(Clock::now() - start).count() * 1e-9;
}

PeakRates measure_peak(int threads) {
  const kernels::IsaSet isas = kernels::available_isas();
  ThreadPool pool(threads);
  PeakRates peak{.threads = pool.num_threads()};
  peak.f32_gflops = kernel_rate(pool, kernels::PeakKind::kF32, isas);
  peak.bf16_gflops = kernel_rate(pool, kernels::PeakKind::kBf16, isas);
  peak.int8_gops = kernel_rate(pool, kernels::PeakKind::kInt8, isas);
  peak.read_gbytes = read_rate(threads);
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
