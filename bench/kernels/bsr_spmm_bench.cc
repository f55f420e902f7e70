// Block-sparse products against oneDNN's dense ones, one thread.
//
//   <case>/<kernel>/<N>x<K>/m<M>/s<percent of zero blocks>
//   u8s8        X packed already, s32 results: the multiplications alone
//   u8s8_pairs  the same with weights up to 64, for kernels with a form for those
//   u8s8_layer  from f32 X to f32 Y: quantise per tensor, pack, multiply, scales, bias
//   f32, bf16   X packed already; oneDNN gets bf16 X rounded already
//   *_layer     from f32 X: round, pack, multiply, bias
// Counters: dense = 2 M N K / time in G/s, real = the stored part of it.
// Compare with random interleaving, see bench/README.md; sparse_curve.py makes ratios and a figure.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/kernels/onednn.h"
#include "kernels/bsr_spmm/bsr_spmm.h"
#include "kernels/gemm/quantize_rows.h"
#include "kernels/simd/half.h"
#include "runtime/base/packed_cache.h"

namespace sprun::kernels {
namespace {

using bench::OneDnn;

struct Shape {
  int64_t n, k;
};
constexpr Shape kShapes[] = {{1024, 256},  {768, 768},   {3072, 768}, {768, 3072},
                             {4096, 1024}, {1024, 4096}, {8192, 2048}};
constexpr int64_t kRows[] = {1, 4, 16, 32, 64, 128, 384};
constexpr int kPercents[] = {0, 30, 50, 70, 75, 80, 85, 90, 95};

struct Serial {
  template <class Fn>
  void operator()(int64_t n, int64_t, const Fn& fn) const {
    fn(0, n, 0);
  }
};

using Buffer = PackedBlob;  // as the product allocates: huge pages where there are any
Buffer allocate(int64_t bytes) {
  Buffer b = std::move(allocate_blob(bytes + 64)).value();
  std::memset(b.data.get(), 0, static_cast<size_t>(bytes));
  return b;
}

void count(benchmark::State& state, const Shape& s, int64_t m, double density) {
  const double work = 2e-9 * static_cast<double>(m) * static_cast<double>(s.n * s.k);
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  state.counters["dense"] = benchmark::Counter(work, rate);
  state.counters["real"] = benchmark::Counter(work * density, rate);
}

std::vector<float> random_x(int64_t count) {
  std::mt19937 rng(7);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& v : x) v = normal(rng);
  return x;
}

// f32 X to u8, as ONNX DynamicQuantizeLinear.
struct Quantise {
  Quantise(int64_t m, int64_t k) : m_(m), k_(k), x_(random_x(m * k)) {}
  void run(uint8_t* y) {
    quantize_per_tensor(kernel_, {.x = x_.data(), .ldx = k_, .rows = m_, .k = k_, .y = y, .ldy = k_,
                                  .scale = &scale, .zero_point = &zero_point},
                        1, range_, Serial());
  }
  float scale = 1.0F;
  int32_t zero_point = 0;

 private:
  const QuantizeRowsKernel& kernel_ = *select(quantize_rows_kernels(), available_isas()).kernel;
  int64_t m_, k_;
  std::vector<float> x_;
  alignas(64) char range_[64];
};

// Blocks of the pattern, each 0 with the given chance; value(rng) fills the others.
template <class T, class Value>
std::vector<T> random_weight(BlockShape b, Shape s, int percent, const Value& value) {
  std::mt19937 rng(static_cast<unsigned>(percent) + 1);
  std::vector<T> w(static_cast<size_t>(s.n * s.k), T{0});
  for (int64_t n = 0; n < s.n; n += b.rows) {
    for (int64_t k = 0; k < s.k; k += b.cols) {
      if (rng() % 100 < static_cast<unsigned>(percent)) continue;
      for (int64_t i = 0; i < b.size(); ++i) {
        w[static_cast<size_t>((n + i / b.cols) * s.k + k + i % b.cols)] = value(rng);
      }
    }
  }
  return w;
}

void onednn(benchmark::State& state, Shape s, int64_t m, bool layer) {
  using D = OneDnn::DataType;
  OneDnn matmul(m, s.n, s.k, D::u8, D::s8, layer ? D::f32 : D::s32);
  Quantise quantise(m, s.k);
  for (auto _ : state) {
    if (layer) quantise.run(matmul.x());
    matmul.run();
  }
  count(state, s, m, 1.0);
}

class SparseLayer {
 public:
  SparseLayer(const BsrU8S8Kernel& kernel, Shape s, int64_t m, int percent, int most)
      : kernel_(kernel), s_(s), m_(m), quantise_(m, s.k) {
    const auto w = random_weight<int8_t>(kernel.layout.block, s, percent, [most](auto& rng) {
      const int value = static_cast<int>(rng() % static_cast<unsigned>(2 * most)) - most;
      return static_cast<int8_t>(value < 0 ? value : value + 1);
    });
    const NonZeros bits = NonZeros::of(WeightSource<int8_t>{w.data(), s.n, s.k, s.k, 1});
    density = bits.density(kBlock1x1);
    const BsrSize size = bsr_size(kernel.layout, bits);
    blob_ = allocate(size.bytes(1));
    int8_t* values = static_cast<int8_t*>(blob_.data.get()) + size.values_at();
    const auto place = [&](int64_t at, int64_t n, int64_t k) {
      values[at] = w[static_cast<size_t>(n * s.k + k)];
    };
    args_.w = bsr_pack(kernel.layout, bits, size, blob_.data.get(), place);
    args_.w.pairs_fit = bsr_pairs_fit(values, size.groups * size.group_values);
    const int64_t slabs = num_slabs(kernel.layout, m);
    parts_ = bsr_parts(args_.w, slabs, 1);
    slabs_ = allocate(slabs * x_slab_elements(kernel.layout, s.k));
    x_ = allocate(m * s.k);
    y_ = allocate(m * s.n * 4);
    scratch_ = allocate(kernel.scratch_bytes);
    w_sum_.assign(static_cast<size_t>(args_.w.num_units * kernel.layout.unit_rows), 5);
    scale_.assign(static_cast<size_t>(s.n), 0.01F);
    args_.slabs = static_cast<uint8_t*>(slabs_.data.get());
    args_.gemm = {.m = m, .n = s.n, .k = s.k, .x = static_cast<uint8_t*>(x_.data.get()), .ldx = s.k,
                  .w_sum = w_sum_.data(), .x_scale = &quantise_.scale, .w_scale = scale_.data(),
                  .w_scale_stride = 1, .ldy = s.n, .epilogue = {}};
  }

  void multiply() {
    args_.gemm.y_s32 = static_cast<int32_t*>(y_.data.get());
    run_bsr(kernel_, args_, parts_, scratch_.data.get(), Serial());
  }
  void layer() {
    auto* x = static_cast<uint8_t*>(x_.data.get());
    quantise_.run(x);
    if (kernel_.pack_x != nullptr) {
      pack_x_slabs(kernel_, x, s_.k, m_, s_.k, static_cast<uint8_t*>(slabs_.data.get()), Serial());
    }
    args_.gemm.x_zero_point = &quantise_.zero_point;
    args_.gemm.y = static_cast<float*>(y_.data.get());
    args_.gemm.epilogue.bias = scale_.data();
    run_bsr(kernel_, args_, parts_, scratch_.data.get(), Serial());
  }
  double density = 0;

 private:
  const BsrU8S8Kernel& kernel_;
  Shape s_;
  int64_t m_;
  Quantise quantise_;
  Buffer blob_, slabs_, x_, y_, scratch_;
  BsrParts parts_;
  std::vector<int32_t> w_sum_;
  std::vector<float> scale_;
  BsrU8S8Args args_;
};

void sparse(benchmark::State& state, const BsrU8S8Kernel& kernel, Shape s, int64_t m, int percent,
            bool layer, int most = 127) {
  SparseLayer test(kernel, s, m, percent, most);
  for (auto _ : state) {
    if (layer) test.layer();
    else test.multiply();
  }
  count(state, s, m, test.density);
}

struct TypeF32 {
  using Kernel = BsrF32Kernel;
  using Args = BsrF32Args;
  using Value = float;
  static constexpr auto kOneDnn = OneDnn::DataType::f32;
  static float value(float w) { return w; }
};
struct TypeBf16 {
  using Kernel = BsrBf16Kernel;
  using Args = BsrBf16Args;
  using Value = uint16_t;
  static constexpr auto kOneDnn = OneDnn::DataType::bf16;
  static uint16_t value(float w) { return simd::f32_to_bf16(w); }
};

template <class Type>
void onednn_float(benchmark::State& state, Shape s, int64_t m) {
  OneDnn matmul(m, s.n, s.k, Type::kOneDnn, Type::kOneDnn, OneDnn::DataType::f32);
  for (auto _ : state) matmul.run();
  count(state, s, m, 1.0);
}

template <class Type>
class SparseFloat {
 public:
  SparseFloat(const typename Type::Kernel& kernel, Shape s, int64_t m, int percent)
      : kernel_(kernel), s_(s), m_(m), x_(random_x(m * s.k)) {
    using Value = typename Type::Value;
    const auto w = random_weight<float>(kernel.layout.block, s, percent, [](auto& rng) {
      return static_cast<float>(rng() % 1000 + 1) * 1e-3F;
    });
    const NonZeros bits = NonZeros::of(WeightSource<float>{w.data(), s.n, s.k, s.k, 1});
    density = bits.density(kBlock1x1);
    const BsrSize size = bsr_size(kernel.layout, bits);
    blob_ = allocate(size.bytes(sizeof(Value)));
    char* blob = static_cast<char*>(blob_.data.get());
    Value* values = reinterpret_cast<Value*>(blob + size.values_at());
    args_.w = bsr_pack(kernel.layout, bits, size, blob, [&](int64_t at, int64_t n, int64_t k) {
      values[at] = Type::value(w[static_cast<size_t>(n * s.k + k)]);
    });
    const int64_t slabs = num_slabs(kernel.layout, m);
    parts_ = bsr_parts(args_.w, slabs, 1);
    const int64_t value_bytes = sizeof(Value);
    slabs_ = allocate(slabs * x_slab_elements(kernel.layout, s.k) * value_bytes);
    y_ = allocate(m * s.n * 4);
    scratch_ = allocate(kernel.scratch_bytes);
    bias_.assign(static_cast<size_t>(s.n), 0.5F);
    args_.slabs = static_cast<Value*>(slabs_.data.get());
    args_.gemm = {m, s.n, s.k, nullptr, 0, nullptr, static_cast<float*>(y_.data.get()), s.n, {}};
    args_.gemm.epilogue.bias = bias_.data();
    pack();
  }

  void pack() {
    auto* out = static_cast<typename Type::Value*>(slabs_.data.get());
    pack_x_slabs(kernel_, x_.data(), s_.k, m_, s_.k, out, Serial());
  }
  void multiply() { run_bsr(kernel_, args_, parts_, scratch_.data.get(), Serial()); }
  double density = 0;

 private:
  const typename Type::Kernel& kernel_;
  Shape s_;
  int64_t m_;
  std::vector<float> x_, bias_;
  Buffer blob_, slabs_, y_, scratch_;
  BsrParts parts_;
  typename Type::Args args_;
};

template <class Type>
void sparse_float(benchmark::State& state, const typename Type::Kernel& kernel, Shape s, int64_t m,
                  int percent, bool layer) {
  SparseFloat<Type> test(kernel, s, m, percent);
  for (auto _ : state) {
    if (layer) test.pack();
    test.multiply();
  }
  count(state, s, m, test.density);
}

void add_case(const std::string& name, const auto& fn) {
  benchmark::RegisterBenchmark(name.c_str(), fn)->Unit(benchmark::kMicrosecond);
}

// All cases of a group: dense(state, shape, rows), sparse(state, kernel, shape, rows, percent).
template <class Kernel, class Dense, class Sparse>
void add_group(const std::string& group, std::span<const KernelInfo<Kernel>> kernels,
               const Dense& dense, const Sparse& sparse) {
  for (const Shape& s : kShapes) {
    for (int64_t m : kRows) {
      const std::string size =
          "/" + std::to_string(s.n) + "x" + std::to_string(s.k) + "/m" + std::to_string(m);
      add_case(group + "/onednn" + size, [=](benchmark::State& state) { dense(state, s, m); });
      for (const auto& info : kernels) {
        if (!available_isas().contains(info.isa) || info.name.ends_with("_ref")) continue;
        for (int percent : kPercents) {
          add_case(group + "/" + std::string(info.name) + size + "/s" + std::to_string(percent),
                   [=, kernel = info.kernel](benchmark::State& state) {
                     sparse(state, *kernel, s, m, percent);
                   });
        }
      }
    }
  }
}

template <class Type>
void add_float_groups(const std::string& name,
                      std::span<const KernelInfo<typename Type::Kernel>> kernels) {
  for (bool layer : {false, true}) {
    add_group(name + (layer ? "_layer" : ""), kernels, onednn_float<Type>,
              [=](benchmark::State& state, const typename Type::Kernel& kernel, Shape s, int64_t m,
                  int percent) { sparse_float<Type>(state, kernel, s, m, percent, layer); });
  }
}

bool register_all() {
  for (bool layer : {false, true}) {
    add_group(layer ? "u8s8_layer" : "u8s8", bsr_u8s8_kernels(),
              [=](benchmark::State& state, Shape s, int64_t m) { onednn(state, s, m, layer); },
              [=](benchmark::State& state, const BsrU8S8Kernel& kernel, Shape s, int64_t m,
                  int percent) { sparse(state, kernel, s, m, percent, layer); });
  }
  std::vector<KernelInfo<BsrU8S8Kernel>> bounded;
  for (const auto& info : bsr_u8s8_kernels()) {
    if (info.kernel->has_bounded_form) bounded.push_back(info);
  }
  add_group("u8s8_pairs", std::span<const KernelInfo<BsrU8S8Kernel>>(bounded),
            [](benchmark::State& state, Shape s, int64_t m) { onednn(state, s, m, false); },
            [](benchmark::State& state, const BsrU8S8Kernel& kernel, Shape s, int64_t m, int percent) {
              sparse(state, kernel, s, m, percent, false, 64);
            });
  add_float_groups<TypeF32>("f32", bsr_f32_kernels());
  add_float_groups<TypeBf16>("bf16", bsr_bf16_kernels());
  return true;
}

[[maybe_unused]] const bool kRegistered = register_all();

}  // namespace
}  // namespace sprun::kernels
