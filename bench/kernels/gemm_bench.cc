// Dense GEMM: own packed kernels against oneDNN (matmul primitive, weights in its preferred layout,
// one thread, the same epilogue: bias; for int8 also zero point and scales). Prints G operations
// per second, % of the ceiling of the own kernel, and how many times faster it is than oneDNN.
//
//   gemm_bench [f32|bf16|u8s8]...      all three without arguments
//
// Both sides run alternately in one process. "cold" walks over enough copies of the weights to miss
// the last-level cache, which is what the layers of a model see; "warm" repeats one layer.
// Time is CPU time of the thread, so that a busy machine disturbs less; the lower quartile of
// kRounds short rounds is reported.
#include <omp.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "bench/kernels/measure.h"
#include "kernels/gemm/gemm.h"

namespace sprun::kernels {
namespace {

using bench::allocate;
using bench::as;
using bench::Buffer;
using bench::now;
using bench::quantile;

using dnnl::memory;
using DataType = memory::data_type;
using Tag = memory::format_tag;

constexpr int kRounds = 25;
constexpr int64_t kColdBytes = 160 << 20;

struct Case {
  int64_t m, n, k;
  int copies;
  int iterations;
};

// One side of the comparison: run(i) computes the layer with weight copy i.
template <class Run>
double seconds(const Case& c, const Run& run) {
  const double start = now();
  for (int i = 0; i < c.iterations; ++i) run(i % c.copies);
  return (now() - start) / c.iterations;
}

// oneDNN matmul with `copies` packed weights and the epilogue of the own side.
class OneDnn {
 public:
  OneDnn(const Case& c, DataType x, DataType w)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    const memory::desc xd({c.m, c.k}, x, Tag::ab);
    const memory::desc wd({c.k, c.n}, w, Tag::any);
    const memory::desc bd({1, c.n}, DataType::f32, Tag::ab);
    const memory::desc yd({c.m, c.n}, DataType::f32, Tag::ab);
    dnnl::primitive_attr attr;
    if (x == DataType::u8) {
      attr.set_zero_points(DNNL_ARG_SRC, 0, {117});
      attr.set_output_scales(1 << 1, std::vector<float>(static_cast<size_t>(c.n), 1e-4F));
    }
    const dnnl::matmul::primitive_desc pd(dnnl::matmul::desc(xd, wd, bd, yd), attr, engine_);
    matmul_ = dnnl::matmul(pd);
    for (const memory::desc& d : {xd, bd, yd}) {
      io_.emplace_back(d, engine_);
      std::memset(io_.back().get_data_handle(), 1, d.get_size());
    }
    for (int i = 0; i < c.copies; ++i) {
      w_.emplace_back(pd.weights_desc(), engine_);
      std::memset(w_.back().get_data_handle(), 1, pd.weights_desc().get_size());
    }
  }
  void run(int copy) {
    matmul_.execute(stream_, {{DNNL_ARG_SRC, io_[0]},
                              {DNNL_ARG_WEIGHTS, w_[static_cast<size_t>(copy)]},
                              {DNNL_ARG_BIAS, io_[1]},
                              {DNNL_ARG_DST, io_[2]}});
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  std::vector<memory> io_, w_;
};

struct Serial {
  template <class Fn>
  void operator()(int64_t n, int64_t, const Fn& fn) const {
    fn(0, n, 0);
  }
};

// The own side of each family: run(copy) computes the whole layer with weight copy `copy`.
class OwnF32 {
 public:
  static constexpr DataType kX = DataType::f32, kW = DataType::f32;
  explicit OwnF32(const Case& c)
      : size_(packed_size_f32(c.n, c.k, kernel_.nr)),
        w_(allocate(size_ * 4 * c.copies)),
        x_(allocate(c.m * c.k * 4)),
        y_(allocate(c.m * c.n * 4)),
        bias_(allocate(c.n * 4)),
        scratch_(allocate(gemm_scratch_bytes(kernel_, 1))) {
    args_ = {c.m, c.n, c.k, as<float>(x_), c.k, nullptr, as<float>(y_), c.n, {}};
    args_.epilogue.bias = as<float>(bias_);
  }
  void run(int copy) {
    args_.w = as<float>(w_) + size_ * copy;
    gemm_f32(kernel_, args_, 1, scratch_.get(), Serial());
  }
  int64_t nr() const { return kernel_.nr; }

 private:
  const GemmF32Kernel& kernel_ = *select(gemm_f32_kernels(), available_isas()).kernel;
  int64_t size_;
  Buffer w_, x_, y_, bias_, scratch_;
  GemmF32Args args_;
};

// Includes rounding X to bf16; oneDNN gets X in bf16 already.
class OwnBf16 {
 public:
  static constexpr DataType kX = DataType::bf16, kW = DataType::bf16;
  explicit OwnBf16(const Case& c)
      : size_(packed_size_bf16(c.n, c.k, kernel_.nr)),
        w_(allocate(size_ * 2 * c.copies)),
        x_(allocate(c.m * c.k * 4)),
        y_(allocate(c.m * c.n * 4)),
        bias_(allocate(c.n * 4)),
        scratch_(allocate(gemm_bf16_scratch_bytes(kernel_, c.m, c.k, 1))) {
    args_ = {c.m, c.n, c.k, nullptr, 0, nullptr, as<float>(y_), c.n, {}};
    args_.epilogue.bias = as<float>(bias_);
  }
  void run(int copy) {
    args_.w = as<uint16_t>(w_) + size_ * copy;
    gemm_bf16(kernel_, as<float>(x_), args_.k, args_, 1, scratch_.get(), Serial());
  }
  int64_t nr() const { return kernel_.nr; }

 private:
  const GemmBf16Kernel& kernel_ = *select(gemm_bf16_kernels(), available_isas()).kernel;
  int64_t size_;
  Buffer w_, x_, y_, bias_, scratch_;
  GemmBf16Args args_;
};

// Zero point per tensor, weight scales per output.
class OwnU8S8 {
 public:
  static constexpr DataType kX = DataType::u8, kW = DataType::s8;
  explicit OwnU8S8(const Case& c)
      : size_(packed_size_s8(c.n, c.k, kernel_.nr)),
        w_(allocate(size_ * c.copies)),
        x_(allocate(c.m * c.k)),
        y_(allocate(c.m * c.n * 4)),
        per_output_(allocate((c.n + kernel_.nr) * 4)),
        scratch_(allocate(gemm_scratch_bytes(kernel_, 1))) {
    args_.m = c.m;
    args_.n = c.n;
    args_.k = args_.ldx = c.k;
    args_.x = as<uint8_t>(x_);
    args_.w_sum = as<int32_t>(per_output_);
    args_.x_zero_point = &zero_point_;
    args_.x_scale = &scale_;
    args_.w_scale = as<float>(per_output_);
    args_.w_scale_stride = 1;
    args_.y = as<float>(y_);
    args_.ldy = c.n;
    args_.epilogue.bias = as<float>(per_output_);
  }
  void run(int copy) {
    args_.w = as<int8_t>(w_) + size_ * copy;
    gemm_u8s8(kernel_, args_, 1, scratch_.get(), Serial());
  }
  int64_t nr() const { return kernel_.nr; }

 private:
  const GemmU8S8Kernel& kernel_ = *select(gemm_u8s8_kernels(), available_isas()).kernel;
  int64_t size_;
  Buffer w_, x_, y_, per_output_, scratch_;
  int32_t zero_point_ = 117;
  float scale_ = 0.01F;
  GemmU8S8Args args_;
};

double work_giga(const Case& c) {
  return 2e-9 * static_cast<double>(c.m) * static_cast<double>(c.n) * static_cast<double>(c.k);
}

// Rate on weights that stay in L2: within 2 % of what the multiply instructions allow.
template <class Own>
double ceiling() {
  const int64_t nr = Own(Case{1, 1, 1, 1, 1}).nr();
  const Case c{48, 4 * nr, 768, 1, 20};
  Own own(c);
  double best = 1e9;
  for (int r = 0; r < 100; ++r) best = std::min(best, seconds(c, [&](int i) { own.run(i); }));
  return work_giga(c) / best;
}

template <class Own>
void compare(const char* family, const Case& c, double top) {
  Own own(c);
  OneDnn other(c, Own::kX, Own::kW);
  std::vector<double> a;
  std::vector<double> b;
  for (int r = 0; r < kRounds; ++r) {
    a.push_back(seconds(c, [&](int i) { own.run(i); }));
    b.push_back(seconds(c, [&](int i) { other.run(i); }));
  }
  const double rate = work_giga(c) / quantile(a, 0.25);
  const double other_rate = work_giga(c) / quantile(b, 0.25);
  const char* weights = c.copies > 1 ? "cold" : "warm";
  std::printf("%-5s M=%3ld N=%4ld K=%4ld %s", family, c.m, c.n, c.k, weights);
  std::printf("  own %7.1f G/s %4.0f%%   oneDNN %7.1f   x%.2f\n", rate, 100.0 * rate / top,
              other_rate, rate / other_rate);
}

template <class Own>
void bench_family(const char* family, int64_t bytes_per_weight) {
  const double top = ceiling<Own>();
  std::printf("%s: ceiling %.1f G/s\n", family, top);
  constexpr int64_t kShapes[][2] = {{768, 768}, {3072, 768}, {768, 3072}, {256, 256}, {1024, 256}};
  for (const auto& [n, k] : kShapes) {
    for (int64_t m : {1, 4, 16, 32, 128, 384}) {
      const int copies = static_cast<int>(kColdBytes / (n * k * bytes_per_weight)) + 1;
      Case c{m, n, k, 1, 1};
      c.iterations = static_cast<int>(std::max(1.0, 0.5 / work_giga(c)));
      compare<Own>(family, c, top);
      c.copies = std::min(copies, 200);
      c.iterations = c.copies;
      if (n * k * bytes_per_weight * c.copies > kColdBytes / 2) compare<Own>(family, c, top);
    }
  }
}

bool wanted(int argc, char** argv, const char* family) {
  if (argc < 2) return true;
  return std::any_of(argv + 1, argv + argc,
                     [&](const char* a) { return std::strcmp(a, family) == 0; });
}

void run_all(int argc, char** argv) {
  omp_set_num_threads(1);
  if (wanted(argc, argv, "f32")) bench_family<OwnF32>("f32", 4);
  if (wanted(argc, argv, "bf16")) bench_family<OwnBf16>("bf16", 2);
  if (wanted(argc, argv, "u8s8")) bench_family<OwnU8S8>("u8s8", 1);
}

}  // namespace
}  // namespace sprun::kernels

int main(int argc, char** argv) {
  sprun::kernels::run_all(argc, argv);
  return 0;
}
