// Sparse feed-forward layers against the same layers dense, weights out of cache.
//
//   sprun_sparse_ffn_bench [threads [tokens [filter]]]     0 threads: 1, then 2
//                                                          0 tokens: 1, 2, 4, 8; else any number
//
// Each line: how many times faster than dense the sparse path is, the ceiling that the bytes set
// (dense bytes / sparse bytes), how much of it is reached, and the bytes a second of three sides
// with their part of what plain reading reaches here:
//   sparse   kernels/sparse_ffn, path chosen by itself
//   dense    the same weights, all neurons
//   gemm     three products of kernels/gemm on their own packed weights
// "dense" of the ratio is the faster of the last two. Sides alternate in one process and walk over
// kLayers copies of the weights, or 2 with many tokens. With one thread, time is CPU time of the thread; with more,
// elapsed time. Medians of kRounds.
#include <emmintrin.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "bench/kernels/measure.h"
#include "kernels/gemm/quantize_rows.h"
#include "kernels/sparse_ffn/sparse_ffn.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {
namespace {

using bench::allocate;
using bench::as;
using bench::Buffer;
using bench::median;
using bench::now;

constexpr int kRounds = 11;
constexpr int kLayers = 6;
constexpr int64_t kManyTokens = 32;  // from here on arithmetic counts, not bytes

struct Case {
  const char* name;
  SparseFfnShape shape;
  FfnSparsifier sparsifier;
  FfnActivation activation;
  double density;
};

constexpr FfnWeights kI8 = FfnWeights::kInt8;
constexpr FfnWeights kBf = FfnWeights::kBf16;
constexpr Case kCases[] = {
    {"spark int8",
     {1024, 1280, 13824, 2304, kI8},
     FfnSparsifier::kStatTopK,
     FfnActivation::kGeluTanh,
     0.08},
    {"gemma3n int8",
     {2048, 2048, 16384, 2048, kI8},
     FfnSparsifier::kStatTopK,
     FfnActivation::kGeluTanh,
     0.05},
    {"reglu int8",
     {4096, 4096, 14336, 4096, kI8},
     FfnSparsifier::kRelu,
     FfnActivation::kIdentity,
     0.10},
    {"spark bf16",
     {1024, 1280, 13824, 2304, kBf},
     FfnSparsifier::kStatTopK,
     FfnActivation::kGeluTanh,
     0.08},
};

// Random weights of a layer. Gates of a ReLU layer get a bias that leaves `density` of them
// positive.
struct Weights {
  std::vector<int8_t> codes[3];
  std::vector<float> values[3];
  std::vector<float> gate_bias, scale;
  SparseFfnSource source;

  explicit Weights(const Case& c) {
    const SparseFfnShape& s = c.shape;
    const int64_t sizes[3][2] = {{s.d_ff, s.d_gate}, {s.d_ff, s.d_up}, {s.d_out, s.d_ff}};
    SparseFfnMatrix* matrices[3] = {&source.gate, &source.up, &source.down};
    scale.assign(static_cast<size_t>(std::max(s.d_ff, s.d_out)), 0.001F);
    std::minstd_rand rng(1);
    for (int m = 0; m < 3; ++m) {
      const auto count = static_cast<size_t>(sizes[m][0] * sizes[m][1]);
      for (size_t i = 0; i < count; ++i) {
        const int code = static_cast<int>((rng() >> 8) % 255) - 127;
        if (s.weights == kI8) {
          codes[m].push_back(static_cast<int8_t>(code));
        } else {
          values[m].push_back(0.001F * static_cast<float>(code));
        }
      }
      matrices[m]->codes = codes[m].data();
      matrices[m]->f32 = values[m].data();
      matrices[m]->stride_n = sizes[m][1];
      matrices[m]->stride_k = 1;
      matrices[m]->scale = scale.data();
      matrices[m]->scale_stride = 1;
    }
    if (c.sparsifier != FfnSparsifier::kRelu) return;
    const double deviation = 0.001 * 73.6 * std::sqrt(static_cast<double>(s.d_gate));
    const double bias = deviation * gaussian_quantile(c.density);
    gate_bias.assign(static_cast<size_t>(s.d_ff), static_cast<float>(bias));
    source.gate.bias = gate_bias.data();
  }
};

struct Side {
  std::function<void(int layer)> run;
  int layers;
  std::vector<double> seconds;  // of one layer
  void measure(clockid_t clock) {
    const double start = now(clock);
    for (int i = 0; i < layers; ++i) run(i);
    seconds.push_back((now(clock) - start) / layers);
  }
  double gb_per_s(int64_t bytes) const {
    return 1e-9 * static_cast<double>(bytes) / median(seconds);
  }
};

// Copies of one layer's weights, each in its own place.
struct Copies {
  int64_t bytes = 0;
  Buffer data;
  void assign(const void* blob, int64_t size) {
    bytes = align_scratch(size);
    data = allocate(bytes * kLayers);
    for (int i = 0; i < kLayers; ++i) std::memcpy(at(i), blob, static_cast<size_t>(size));
  }
  char* at(int i) const { return data.get() + bytes * i; }
};

struct Bench {
  const Case& c;
  ThreadPool& pool;
  clockid_t clock;
  SparseFfn ffn;
  Copies blobs, gemms;
  int64_t gemm_at[4] = {};
  std::vector<float> x, y, ones;
  std::vector<uint8_t> codes;
  std::vector<float> h, x_scale;
  std::vector<int32_t> x_zero, w_sum;
  Buffer scratch;
  SparseFfnStats stats;
  int64_t tokens = 1;
  int64_t most;  // tokens

  Bench(const Case& which, ThreadPool& threads, int64_t most_tokens)
      : c(which),
        pool(threads),
        clock(threads.num_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC),
        ffn(make_sparse_ffn(which.shape, available_isas())),
        most(most_tokens) {
    const Weights weights(c);
    const SparseFfnShape& s = c.shape;
    const Buffer blob = allocate(plan_sparse_ffn(&ffn, weights.source));
    pack_sparse_ffn(ffn, weights.source, pool, blob.get());
    blobs.assign(blob.get(), ffn.at.end);
    if (s.weights == kI8) pack_gemms(weights);
    std::mt19937 rng(2);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < most * kLayers * (s.d_gate + s.d_up); ++i) x.push_back(normal(rng));
    const int64_t widest = std::max({s.d_ff, s.d_gate, s.d_out});
    y.resize(static_cast<size_t>(most * s.d_out));
    ones.assign(static_cast<size_t>(widest), 1.0F);
    codes.resize(static_cast<size_t>(most * widest));
    h.resize(static_cast<size_t>(most * widest));
    x_scale.resize(static_cast<size_t>(most));
    x_zero.resize(static_cast<size_t>(most));
    scratch =
        allocate(std::max<int64_t>(sparse_ffn_scratch_bytes(ffn, most, pool.num_threads()), 8 << 20));
  }

  void pack_gemms(const Weights& weights) {
    const SparseFfnShape& s = c.shape;
    const int64_t sizes[3][2] = {{s.d_ff, s.d_gate}, {s.d_ff, s.d_up}, {s.d_out, s.d_ff}};
    const int64_t nr = ffn.gate_nr;
    for (int m = 0; m < 3; ++m) {
      gemm_at[m + 1] = gemm_at[m] + align_scratch(packed_size_s8(sizes[m][0], sizes[m][1], nr));
    }
    const Buffer packed = allocate(gemm_at[3]);
    w_sum.resize(static_cast<size_t>(std::max(s.d_ff, s.d_out) + nr));
    for (int m = 0; m < 3; ++m) {
      pack_s8({weights.codes[m].data(), sizes[m][0], sizes[m][1], sizes[m][1], 1}, nr, 0,
              num_panels(sizes[m][0], nr), reinterpret_cast<int8_t*>(packed.get() + gemm_at[m]),
              w_sum.data());
    }
    gemms.assign(packed.get(), gemm_at[3]);
  }

  const float* row(int layer) const {
    return x.data() + layer * most * (c.shape.d_gate + c.shape.d_up);
  }

  void run_ffn(int layer, FfnPath path) {
    const SparseFfnShape& s = c.shape;
    SparseFfnArgs a;
    a.tokens = tokens;
    a.weights = blobs.at(layer);
    a.x_gate.x = row(layer);
    a.x_gate.ld = s.d_gate;
    a.x_up.x = row(layer) + most * s.d_gate;
    a.x_up.ld = s.d_up;
    a.rule.sparsifier = c.sparsifier;
    a.rule.activation = c.activation;
    a.rule.z = -gaussian_quantile(c.density);
    a.y = y.data();
    a.ldy = s.d_out;
    a.path = path;
    a.stats = path == FfnPath::kAuto ? &stats : nullptr;
    run_sparse_ffn(ffn, a, pool, scratch.get());
  }

  // One product; x is quantised first, as the layer would.
  void product(int layer, int m, const float* in, int64_t n, int64_t k, float* out) {
    const auto parallel_for = [this](int64_t total, int64_t grain, const auto& fn) {
      pool.parallel_for(total, grain, fn);
    };
    const QuantizeRowsArgs q{in, k, tokens, k, codes.data(), k, x_scale.data(), x_zero.data()};
    quantize_per_row(*ffn.quantize, q, pool.num_threads(), parallel_for);
    GemmU8S8Args a;
    a.m = tokens;
    a.n = n;
    a.k = k;
    a.x = codes.data();
    a.ldx = k;
    a.w = reinterpret_cast<const int8_t*>(gemms.at(layer) + gemm_at[m]);
    a.w_sum = w_sum.data();
    a.x_zero_point = x_zero.data();
    a.x_zero_point_stride = 1;
    a.x_scale = x_scale.data();
    a.x_scale_stride = 1;
    a.w_scale = ones.data();
    a.w_scale_stride = 1;
    a.y = out;
    a.ldy = n;
    gemm_u8s8(*ffn.gate_u8s8, a, pool.num_threads(), scratch.get(), parallel_for);
  }

  void run_gemms(int layer) {
    const SparseFfnShape& s = c.shape;
    product(layer, 0, row(layer), s.d_ff, s.d_gate, h.data());
    product(layer, 1, row(layer) + most * s.d_gate, s.d_ff, s.d_up, h.data());
    product(layer, 2, h.data(), s.d_out, s.d_ff, y.data());
  }

  // Plain reading of the blobs.
  void read(int layer) {
    const auto* lines = reinterpret_cast<const __m128i*>(blobs.at(layer));
    pool.parallel_for(blobs.bytes / 4096, 256, [&](int64_t begin, int64_t end, int) {
      __m128i a = _mm_setzero_si128(), b = a, d = a, e = a;
      for (int64_t i = begin * 256; i < end * 256; i += 4) {
        _mm_prefetch(reinterpret_cast<const char*>(lines + i) + 8192, _MM_HINT_T0);
        a = _mm_xor_si128(a, _mm_load_si128(lines + i));
        b = _mm_xor_si128(b, _mm_load_si128(lines + i + 1));
        d = _mm_xor_si128(d, _mm_load_si128(lines + i + 2));
        e = _mm_xor_si128(e, _mm_load_si128(lines + i + 3));
      }
      const __m128i all = _mm_xor_si128(_mm_xor_si128(a, b), _mm_xor_si128(d, e));
      asm volatile("" : : "x"(all));
    });
  }

  void measure(int64_t count) {
    tokens = count;
    const int layers = count < kManyTokens ? kLayers : 2;
    Side sparse{[this](int i) { run_ffn(i, FfnPath::kAuto); }, layers, {}};
    Side dense{[this](int i) { run_ffn(i, FfnPath::kDense); }, layers, {}};
    Side gemm{[this](int i) { run_gemms(i); }, layers, {}};
    Side reading{[this](int i) { read(i); }, layers, {}};
    for (int r = 0; r < kRounds; ++r) {
      reading.measure(clock);
      sparse.measure(clock);
      dense.measure(clock);
      if (gemms.bytes > 0) gemm.measure(clock);
    }
    const int64_t all = sparse_ffn_bytes(ffn, c.shape.d_ff);
    const double read_rate = reading.gb_per_s(blobs.bytes);
    double best = median(dense.seconds);
    if (gemms.bytes > 0) best = std::min(best, median(gemm.seconds));
    const double ratio = best / median(sparse.seconds);
    const double ceiling = static_cast<double>(all) / static_cast<double>(stats.bytes_touched);
    std::printf(
        "%-13s threads %d T=%ld  %6.0f us  x%5.2f of x%5.2f (%3.0f%%)  active %4.1f%%", c.name,
        pool.num_threads(), tokens, 1e6 * median(sparse.seconds), ratio, ceiling,
        100.0 * ratio / ceiling,
        100.0 * static_cast<double>(stats.union_active) / static_cast<double>(c.shape.d_ff));
    const auto print = [read_rate](const char* name, double rate) {
      std::printf("  %s %4.1f GB/s (%3.0f%%)", name, rate, 100.0 * rate / read_rate);
    };
    print("sparse", sparse.gb_per_s(stats.bytes_touched));
    print("dense", dense.gb_per_s(all));
    if (gemms.bytes > 0) print("gemm", gemm.gb_per_s(gemm_at[3]));
    std::printf("  read %4.1f GB/s\n", read_rate);
    std::fflush(stdout);
  }
};

}  // namespace
}  // namespace sprun::kernels

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  const int64_t tokens = argc > 2 ? std::atoi(argv[2]) : 0;
  const std::string filter = argc > 3 ? argv[3] : "";
  for (const auto& c : sprun::kernels::kCases) {
    if (std::string(c.name).find(filter) == std::string::npos) continue;
    for (int n : {1, 2}) {
      if (threads != 0 && threads != n) continue;
      sprun::ThreadPool pool(n);
      sprun::kernels::Bench bench(c, pool, std::max<int64_t>(tokens, 8));
      for (int64_t t : {1, 2, 4, 8}) {
        if (tokens == 0) bench.measure(t);
      }
      if (tokens != 0) bench.measure(tokens);
    }
  }
  return 0;
}
