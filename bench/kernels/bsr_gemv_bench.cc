// Compressed GEMV against the dense GEMV of kernels/gemm, weights out of cache; 16x4 is the block-sparse
// product of kernels/bsr_spmm for few rows.
//
//   sprun_bsr_gemv_bench [threads [rows [filter]]]     0 threads: 1, then 2; rows: M, default 1
//
// Each line: how many times faster than dense the compressed form is, its byte ceiling (dense bytes
// / compressed bytes), and the bytes a second of both. "read" lines say how fast this machine reads
// the same memory with the same threads, which is what GB/s compare with.
// Sides alternate in one process and walk over copies of the weights that are kColdBytes together.
// With one thread, time is CPU time of the thread; with more, elapsed time. Medians of kRounds.
#include <emmintrin.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "bench/kernels/measure.h"
#include "kernels/bsr_gemv/bsr_gemv.h"
#include "kernels/bsr_gemv/pack.h"
#include "kernels/bsr_spmm/bsr_spmm.h"
#include "kernels/gemm/gemm.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

using bench::allocate;
using bench::as;
using bench::Buffer;
using bench::median;
using bench::now;

constexpr int kRounds = 21;
constexpr int64_t kColdBytes = 192 << 20;

// Copies of one packed weight, next to each other.
struct Copies {
  int64_t bytes = 0;  // of one, rounded up to lines
  int count = 0;
  Buffer data;

  void assign(const void* weight, int64_t size) {
    bytes = (size + 63) / 64 * 64;
    count = static_cast<int>(kColdBytes / bytes) + 1;
    data = allocate(bytes * count);
    for (int i = 0; i < count; ++i) std::memcpy(at(i), weight, static_cast<size_t>(size));
  }
  char* at(int i) const { return as<char>(data) + bytes * i; }
};

// One side of a comparison: a product with copy i of its weights.
struct Side {
  Copies copies;
  std::function<void(const void* weight)> run;
  std::vector<double> seconds;  // of one product

  // Inside the pool, as the layers of a session run.
  void measure(ThreadPool& pool, clockid_t clock) {
    const double start = now(clock);
    pool.enter([this] {
      for (int i = 0; i < copies.count; ++i) run(copies.at(i));
    });
    seconds.push_back((now(clock) - start) / copies.count);
  }
  double gb_per_s() const { return 1e-9 * static_cast<double>(copies.bytes) / median(seconds); }
};

struct Bench {
  int64_t m, n, k;
  ThreadPool& pool;
  clockid_t clock;
  std::vector<uint8_t> x_u8;
  std::vector<uint16_t> x_bf16;
  std::vector<float> y, per_output;
  std::vector<int32_t> w_sum;
  Buffer scratch = allocate(4 << 20), slabs = allocate(4 << 20);
  float x_scale = 0.01F;

  Bench(int64_t rows, int64_t outputs, int64_t inputs, ThreadPool& threads)
      : m(rows),
        n(outputs),
        k(inputs),
        pool(threads),
        clock(threads.num_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC),
        x_u8(static_cast<size_t>(m * k), 3),
        x_bf16(static_cast<size_t>(m * k), 0x3f80),
        y(static_cast<size_t>(m * n)),
        per_output(static_cast<size_t>(n), 0.01F) {}

  auto parallel_for() {
    return [this](int64_t total, int64_t grain, const auto& fn) {
      pool.parallel_for(total, grain, fn);
    };
  }
  GemmU8S8Args u8s8_args() {
    GemmU8S8Args a;
    a.m = m;
    a.n = n;
    a.k = a.ldx = k;
    a.x = x_u8.data();
    a.x_scale = &x_scale;
    a.w_scale = per_output.data();
    a.w_scale_stride = 1;
    a.y = y.data();
    a.ldy = n;
    a.epilogue.bias = per_output.data();
    return a;
  }
  GemmBf16Args bf16_args() {
    GemmBf16Args a{m, n, k, x_bf16.data(), k, nullptr, y.data(), n, {}};
    a.epilogue.bias = per_output.data();
    return a;
  }

  Side dense_u8s8() {
    const auto& kernel = *select(gemm_u8s8_kernels(), available_isas()).kernel;
    const std::vector<int8_t> w(static_cast<size_t>(packed_size_s8(n, k, kernel.nr)), 1);
    Side side;
    side.copies.assign(w.data(), static_cast<int64_t>(w.size()));
    side.run = [this, &kernel](const void* weight) {
      GemmU8S8Args a = u8s8_args();
      a.w = static_cast<const int8_t*>(weight);
      gemm_u8s8(kernel, a, pool.num_threads(), scratch.get(), parallel_for());
    };
    return side;
  }
  Side dense_bf16() {
    const auto& kernel = *select(gemm_bf16_kernels(), available_isas()).kernel;
    const std::vector<uint16_t> w(static_cast<size_t>(packed_size_bf16(n, k, kernel.nr)), 0x3f80);
    Side side;
    side.copies.assign(w.data(), static_cast<int64_t>(w.size()) * 2);
    side.run = [this, &kernel](const void* weight) {
      GemmBf16Args a = bf16_args();
      a.w = static_cast<const uint16_t*>(weight);
      run_grid(kernel, a, make_grid(m, n, k, kernel.nr, 2, pool.num_threads()), scratch.get(),
               parallel_for());
    };
    return side;
  }
  Side compressed_u8s8(const std::vector<int8_t>& w, GemvFormat format) {
    const auto& kernel = *select(bsr_gemv_u8s8_kernels(), available_isas()).kernel;
    const WeightSource<int8_t> source{w.data(), n, k, k, 1};
    const GemvCounts counts = count_gemv_s8(source, nullptr, 0);
    const int64_t bytes = gemv_packed_bytes(counts, format, 1);
    const Buffer blob = allocate(bytes);
    pack_gemv_s8(source, nullptr, 0, counts, format, blob.get());
    Side side;
    side.copies.assign(blob.get(), bytes);
    side.run = [this, &kernel](const void* weight) {
      GemmU8S8Args a = u8s8_args();
      a.w = static_cast<const int8_t*>(weight);
      bsr_gemv(kernel, a, pool.num_threads(), parallel_for());
    };
    return side;
  }
  Side blocks_u8s8(const std::vector<int8_t>& w) {
    const auto& kernel = *select_bsr(bsr_u8s8_kernels(), kBlock16x4, m, available_isas())->kernel;
    const NonZeros bits = NonZeros::of(WeightSource<int8_t>{w.data(), n, k, k, 1});
    const BsrSize size = bsr_size(kernel.layout, bits);
    const Buffer blob = allocate(size.bytes(1));
    int8_t* values = as<int8_t>(blob) + size.values_at();
    const BsrWeights packed =
        bsr_pack(kernel.layout, bits, size, blob.get(), [&](int64_t at, int64_t row, int64_t col) {
          values[at] = w[static_cast<size_t>(row * k + col)];
        });
    const BsrParts parts = bsr_parts(packed, num_slabs(kernel.layout, m), pool.num_threads());
    w_sum.assign(static_cast<size_t>(size.units * kernel.layout.unit_rows), 5);
    Side side;
    side.copies.assign(blob.get(), size.bytes(1));
    side.run = [this, &kernel, size, parts](const void* weight) {
      BsrU8S8Args args = {u8s8_args(), bsr_view(size, weight), as<uint8_t>(slabs)};
      args.gemm.w_sum = w_sum.data();
      if (kernel.pack_x != nullptr) {
        pack_x_slabs(kernel, args.gemm.x, k, m, k, as<uint8_t>(slabs), parallel_for());
      }
      run_bsr(kernel, args, parts, scratch.get(), parallel_for());
    };
    return side;
  }
  Side compressed_bf16(const std::vector<int8_t>& w) {
    const auto& kernel = *select(bsr_gemv_bf16_kernels(), available_isas()).kernel;
    const std::vector<float> values(w.begin(), w.end());
    const WeightSource<float> source{values.data(), n, k, k, 1};
    const GemvCounts counts = count_gemv_bf16(source);
    const int64_t bytes = gemv_packed_bytes(counts, GemvFormat::kBitmap, 2);
    const Buffer blob = allocate(bytes);
    pack_gemv_bf16(source, counts, GemvFormat::kBitmap, blob.get());
    Side side;
    side.copies.assign(blob.get(), bytes);
    side.run = [this, &kernel](const void* weight) {
      GemmBf16Args a = bf16_args();
      a.w = static_cast<const uint16_t*>(weight);
      bsr_gemv(kernel, a, pool.num_threads(), parallel_for());
    };
    return side;
  }
};

// Blocks of 16 outputs x 4 inputs, each with probability `density`.
std::vector<int8_t> random_blocks(int64_t n, int64_t k, double density) {
  std::mt19937 rng(1);
  std::vector<int8_t> w(static_cast<size_t>(n * k), 0);
  const auto threshold = static_cast<uint32_t>(density * 4294967295.0);
  for (int64_t block = 0; block < n * k / 64; ++block) {
    if (rng() > threshold) continue;
    const int64_t row = block / (k / 4) * 16, col = block % (k / 4) * 4;
    for (int64_t i = 0; i < 64; ++i) {
      w[static_cast<size_t>((row + i / 4) * k + col + i % 4)] = static_cast<int8_t>(rng() % 127 + 1);
    }
  }
  return w;
}

// Random weights: of every `unit` consecutive inputs, `kept` units of `block` inputs are not 0;
// unit = 0: each block with probability `density`.
std::vector<int8_t> random_weights(int64_t n, int64_t k, int64_t block, int64_t unit, int64_t kept,
                                   double density) {
  std::mt19937 rng(1);
  std::vector<int8_t> w(static_cast<size_t>(n * k), 0);
  const auto threshold = static_cast<uint32_t>(density * 4294967295.0);
  for (int64_t i = 0; i < n * k; i += block) {
    if (unit == 0) {
      if (rng() > threshold) continue;
    } else {
      const int64_t at = i % unit;
      const int64_t first = (i / unit * 7919) % unit;
      if ((at + unit - first) % unit >= kept) continue;
    }
    for (int64_t j = i; j < i + block; ++j) {
      w[static_cast<size_t>(j)] = static_cast<int8_t>(rng() % 127 + 1);
    }
  }
  return w;
}

// Bytes a second that plain reading reaches: what the other lines can be at most.
double read_gb_per_s(ThreadPool& pool, clockid_t clock) {
  const Buffer data = allocate(kColdBytes);
  const auto* lines = reinterpret_cast<const __m128i*>(data.get());
  std::vector<double> seconds;
  std::vector<int64_t> sink(64);
  for (int r = 0; r < kRounds; ++r) {
    const double start = now(clock);
    pool.parallel_for(kColdBytes / 4096, 1024, [&](int64_t begin, int64_t end, int worker) {
      __m128i a = _mm_setzero_si128(), b = a, c = a, d = a;
      for (int64_t i = begin * 256; i < end * 256; i += 4) {
        _mm_prefetch(reinterpret_cast<const char*>(lines + i) + 8192, _MM_HINT_T0);
        a = _mm_xor_si128(a, _mm_load_si128(lines + i));
        b = _mm_xor_si128(b, _mm_load_si128(lines + i + 1));
        c = _mm_xor_si128(c, _mm_load_si128(lines + i + 2));
        d = _mm_xor_si128(d, _mm_load_si128(lines + i + 3));
      }
      const __m128i all = _mm_xor_si128(_mm_xor_si128(a, b), _mm_xor_si128(c, d));
      sink[static_cast<size_t>(worker)] ^= _mm_cvtsi128_si64(all);
    });
    seconds.push_back(now(clock) - start);
  }
  return 1e-9 * static_cast<double>(kColdBytes) / median(seconds);
}

void compare(const char* name, Bench& bench, Side dense, Side compressed) {
  for (int r = 0; r < kRounds; ++r) {
    dense.measure(bench.pool, bench.clock);
    compressed.measure(bench.pool, bench.clock);
  }
  const double ceiling = static_cast<double>(dense.copies.bytes) /
                         static_cast<double>(compressed.copies.bytes);
  const double ratio = median(dense.seconds) / median(compressed.seconds);
  std::printf("M=%2ld N=%4ld K=%4ld threads %d  %-16s", bench.m, bench.n, bench.k,
              bench.pool.num_threads(), name);
  std::printf("  x%5.2f of x%5.2f (%3.0f%%)  dense %5.1f GB/s  compressed %5.1f GB/s\n", ratio,
              ceiling, 100.0 * ratio / ceiling, dense.gb_per_s(), compressed.gb_per_s());
  std::fflush(stdout);
}

struct Case {
  const char* name;
  GemvFormat format;
  bool bf16;
  int64_t block, unit, kept;
  double density;
};

constexpr Case kCases[] = {
    {"bitmap 50%", GemvFormat::kBitmap, false, 1, 0, 0, 0.5},
    {"bitmap 70%", GemvFormat::kBitmap, false, 1, 0, 0, 0.3},
    {"bitmap 80%", GemvFormat::kBitmap, false, 1, 0, 0, 0.2},
    {"bitmap 90%", GemvFormat::kBitmap, false, 1, 0, 0, 0.1},
    {"bitmap 2:4", GemvFormat::kBitmap, false, 1, 4, 2, 0},
    {"bitmap 4:8", GemvFormat::kBitmap, false, 1, 8, 4, 0},
    {"1x4 50%", GemvFormat::kQuads, false, 4, 0, 0, 0.5},
    {"1x4 70%", GemvFormat::kQuads, false, 4, 0, 0, 0.3},
    {"1x4 80%", GemvFormat::kQuads, false, 4, 0, 0, 0.2},
    {"1x4 90%", GemvFormat::kQuads, false, 4, 0, 0, 0.1},
    {"1:4", GemvFormat::kOneOfFour, false, 1, 4, 1, 0},
    {"2:4", GemvFormat::kTwoOfFour, false, 1, 4, 2, 0},
    {"bf16 bitmap 50%", GemvFormat::kBitmap, true, 1, 0, 0, 0.5},
    {"bf16 bitmap 80%", GemvFormat::kBitmap, true, 1, 0, 0, 0.2},
    {"bf16 bitmap 90%", GemvFormat::kBitmap, true, 1, 0, 0, 0.1},
};

struct BlockCase {
  const char* name;
  double density;
};
constexpr BlockCase kBlockCases[] = {
    {"16x4 50%", 0.5}, {"16x4 70%", 0.3}, {"16x4 80%", 0.2}, {"16x4 90%", 0.1}};

void run_threads(int threads, int64_t rows, const std::string& filter) {
  ThreadPool pool(threads);
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{2048, 8192}, {4096, 4096}}) {
    Bench bench(rows, n, k, pool);
    std::printf("read, %d threads: %.1f GB/s\n", pool.num_threads(),
                read_gb_per_s(pool, bench.clock));
    for (const BlockCase& c : kBlockCases) {
      if (std::string(c.name).find(filter) == std::string::npos) continue;
      compare(c.name, bench, bench.dense_u8s8(), bench.blocks_u8s8(random_blocks(n, k, c.density)));
    }
    for (const Case& c : kCases) {
      if (std::string(c.name).find(filter) == std::string::npos) continue;
      const std::vector<int8_t> w = random_weights(n, k, c.block, c.unit, c.kept, c.density);
      compare(c.name, bench, c.bf16 ? bench.dense_bf16() : bench.dense_u8s8(),
              c.bf16 ? bench.compressed_bf16(w) : bench.compressed_u8s8(w, c.format));
    }
  }
}

}  // namespace
}  // namespace sprun::kernels

int main(int argc, char** argv) {
  const int only = argc > 1 ? std::atoi(argv[1]) : 0;
  const int64_t rows = argc > 2 ? std::atoi(argv[2]) : 1;
  for (int threads : {1, 2}) {
    if (only != 0 && only != threads) continue;
    sprun::kernels::run_threads(threads, rows, argc > 3 ? argv[3] : "");
  }
  return 0;
}
