// Float products with weights that stay narrow (kernels/gemm, gemm_narrow) against f32 weights, and products of mostly zero
// inputs (kernels/sparse_input) against the dense product of weights of the same type; 4 bits against kernels/nbits.
//
//   sprun_narrow_bench [rows [filter]]     rows of X, default 1; one thread
//
// 2048 x 2048, weights out of cache. Sides alternate in one process and walk over copies of the weights; CPU time of the
// thread, medians of kRounds. Each line: time of the other side over that of this one, and the bytes a second of both.
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "bench/kernels/measure.h"
#include "kernels/gemm/gemm.h"
#include "kernels/nbits/nbits.h"
#include "kernels/sparse_input/sparse_input.h"

namespace sprun::kernels {
namespace {

using bench::allocate;
using bench::as;
using bench::Buffer;
using bench::median;
using bench::now;

constexpr int kRounds = 21;
constexpr int64_t kColdBytes = 192 << 20, kN = 2048, kK = 2048, kBlock = 32;

// A product with copy i of its weights.
struct Side {
  int64_t bytes = 0;    // of a copy
  int64_t touched = 0;  // that a product reads
  std::function<void(const char* weights)> run;
  Buffer data = {};
  int copies = 0;
  std::vector<double> seconds = {};

  void fill(int value) {
    copies = static_cast<int>(kColdBytes / bytes) + 1;
    data = allocate(bytes * copies, value);
  }
  void measure() {
    const double start = now();
    for (int i = 0; i < copies; ++i) run(as<char>(data) + bytes * i);
    seconds.push_back((now() - start) / copies);
  }
  double gb_per_s() const { return 1e-9 * static_cast<double>(touched) / median(seconds); }
};

struct Bench {
  int64_t m;
  std::vector<float> x, y, ones;
  Buffer scratch = allocate(8 << 20);

  explicit Bench(int64_t rows)
      : m(rows), x(static_cast<size_t>(m * kK), 0.5F), y(static_cast<size_t>(m * kN)), ones(static_cast<size_t>(2 * kN * kK / kBlock), 1.0F) {}

  static auto serial() {
    return [](int64_t n, int64_t, const auto& fn) { fn(0, n, 0); };
  }

  Side dense_f32() {
    const auto& kernel = *select(gemm_f32_kernels(), available_isas()).kernel;
    return {.bytes = kN * kK * 4, .touched = kN * kK * 4, .run = [this, &kernel](const char* w) {
              gemm_f32(kernel, {m, kN, kK, x.data(), kK, reinterpret_cast<const float*>(w), y.data(), kN, {}}, 1,
                       scratch.get(), serial());
            }};
  }
  Side dense_narrow(const GemmNarrowKernel& kernel, int element_bytes, bool blocks) {
    const int64_t params = blocks ? 2 * kN * kK / kBlock * 4 : 0;
    return {.bytes = kN * kK * element_bytes, .touched = kN * kK * element_bytes + params,
            .run = [this, &kernel, element_bytes, blocks](const char* w) {
              GemmNarrowArgs a;
              a.m = m, a.n = kN, a.k = kK, a.x = x.data(), a.ldx = kK, a.w = w, a.y = y.data(), a.ldy = kN;
              if (element_bytes == 1 && !blocks) a.scale = ones.data();
              if (blocks) a.block_params = ones.data(), a.block_size = kBlock;
              gemm_narrow(kernel, a, element_bytes, 1, scratch.get(), serial());
            }};
  }
  Side dense_nbits() {
    const auto& kernel = *select(nbits_kernels(), available_isas()).kernel;
    NbitsWeight w = {.n = kN, .k = kK, .block_size = kBlock, .blocks = kK / kBlock, .bits = 4, .scale = ones.data()};
    return {.bytes = kN * kK / 2, .touched = kN * kK / 2 + kN * kK / kBlock * 4, .run = [this, &kernel, w](const char* data) mutable {
              w.data = reinterpret_cast<const uint8_t*>(data);
              const int64_t stride = kernel.arranged_size(w);
              float* arranged = as<float>(scratch);
              for (int64_t r = 0; r < m; ++r) kernel.arrange(w, x.data() + r * kK, arranged + r * stride);
              NbitsGemvArgs a;
              a.w = w, a.m = m, a.x = arranged, a.x_stride = stride, a.y = y.data(), a.ldy = kN;
              kernel.gemv(a, 0, kN);
            }};
  }
  // `bits` of a weight; the same inputs are active in every row.
  Side sparse(SparseInputWeights type, int64_t bits, double density) {
    const auto& kernel = *select(sparse_input_kernels(type), available_isas()).kernel;
    auto input = std::vector<float>(x.size(), 0.0F);
    std::mt19937 rng(1);
    int64_t active = 0;
    for (int64_t i = 0; i < kK; ++i) {
      const bool on = static_cast<double>(rng() % 1000) < 1000 * density;
      active += on;
      for (int64_t r = 0; r < m && on; ++r) input[static_cast<size_t>(r * kK + i)] = 0.5F;
    }
    const bool s4 = type == SparseInputWeights::kS4;
    const int64_t params = s4 ? kN * kK / kBlock * 4 : 0;
    return {.bytes = kN * kK * bits / 8, .touched = kN * active * bits / 8 + params,
            .run = [this, &kernel, input, s4, bits](const char* w) {
              std::vector<int32_t>& ids = ids_;
              const int64_t ld = listed_capacity(kK), ld_block = block_capacity(kK, kK / kBlock);
              ids.resize(static_cast<size_t>(ld + ld_block));
              values_.resize(static_cast<size_t>(m * (ld + ld_block)));
              int64_t counted = 0;
              SparseInputArgs a;
              a.m = m, a.n = kN, a.k = kK, a.w = w, a.width = sparse_input_width(kN, 1), a.y = y.data(), a.ldy = kN;
              a.listed = list_inputs(input.data(), kK, m, kK, ids.data(), values_.data(), ld, &counted);
              a.ids = ids.data(), a.x = values_.data(), a.ldx = ld;
              if (bits == 8) a.scale = ones.data();
              if (s4) {
                int32_t* to = ids.data() + ld;
                float* to_values = values_.data() + m * ld;
                a.listed = list_by_block(ids.data(), values_.data(), ld, a.listed, m, kBlock, to, to_values, ld_block);
                a.ids = to, a.x = to_values, a.ldx = ld_block;
                a.block_params = ones.data(), a.block_size = kBlock, a.blocks = kK / kBlock;
              }
              kernel.run(a, 0, sparse_input_panels(kN, a.width), as<float>(scratch));
            }};
  }

  std::vector<int32_t> ids_;
  std::vector<float> values_;
};

void compare(const std::string& name, const std::string& filter, Side side, Side other) {
  if (name.find(filter) == std::string::npos) return;
  side.fill(0);
  other.fill(0);
  for (int r = 0; r < kRounds; ++r) {
    side.measure();
    other.measure();
  }
  std::printf("%-34s %7.1f us  x%5.2f   %5.1f GB/s, other side %5.1f GB/s\n", name.c_str(), 1e6 * median(side.seconds),
              median(other.seconds) / median(side.seconds), side.gb_per_s(), other.gb_per_s());
  std::fflush(stdout);
}

struct Type {
  const char* name;
  SparseInputWeights type;
  int64_t bits;
};

void run_all(int64_t rows, const std::string& filter) {
  Bench b(rows);
  const auto narrow = [](const auto& kernels) -> const GemmNarrowKernel& { return *select(kernels, available_isas()).kernel; };
  const auto dense = [&](SparseInputWeights type) {
    switch (type) {
      case SparseInputWeights::kF32: return b.dense_f32();
      case SparseInputWeights::kF16: return b.dense_narrow(narrow(gemm_f32f16_kernels()), 2, false);
      case SparseInputWeights::kBf16: return b.dense_narrow(narrow(gemm_f32bf16_kernels()), 2, false);
      case SparseInputWeights::kS8: return b.dense_narrow(narrow(gemm_f32s8_kernels()), 1, false);
      case SparseInputWeights::kS4: return b.dense_nbits();
    }
    return b.dense_f32();
  };
  compare("narrow f16", filter, dense(SparseInputWeights::kF16), b.dense_f32());
  compare("narrow bf16", filter, dense(SparseInputWeights::kBf16), b.dense_f32());
  compare("narrow s8", filter, dense(SparseInputWeights::kS8), b.dense_f32());
  compare("narrow s8, blocks of 32", filter, b.dense_narrow(narrow(gemm_f32s8_kernels()), 1, true), b.dense_f32());
  if (rows > kSparseInputRows) return;
  for (const Type& t : {Type{"f32", SparseInputWeights::kF32, 32}, {"f16", SparseInputWeights::kF16, 16},
                        {"bf16", SparseInputWeights::kBf16, 16}, {"s8", SparseInputWeights::kS8, 8}, {"s4", SparseInputWeights::kS4, 4}}) {
    for (int percent : {5, 10, 25, 50, 100}) {
      const std::string name = std::string("sparse input ") + t.name + ", " + std::to_string(percent) + " %";
      compare(name, filter, b.sparse(t.type, t.bits, percent / 100.0), dense(t.type));
    }
  }
}

}  // namespace
}  // namespace sprun::kernels

int main(int argc, char** argv) {
  const int64_t rows = argc > 1 ? std::atoi(argv[1]) : 1;
  sprun::kernels::run_all(rows < 1 ? 1 : rows, argc > 2 ? argv[2] : "");
  return 0;
}
