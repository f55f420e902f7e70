// The dense baseline: oneDNN matmul on one thread, weights in its preferred layout.
#pragma once

#include <omp.h>

#include <cstdint>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "runtime/base/packed_cache.h"

namespace sprun::bench {

// Y[M, N] = X[M, K] W; with f32 results of u8 x s8 also zero point, scales per output and bias.
class OneDnn {
 public:
  using DataType = dnnl::memory::data_type;
  using Tag = dnnl::memory::format_tag;

  OneDnn(int64_t m, int64_t n, int64_t k, DataType x, DataType w, DataType y, int copies = 1)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    omp_set_num_threads(1);
    const dnnl::memory::desc xd({m, k}, x, Tag::ab), wd({k, n}, w, Tag::any);
    const dnnl::memory::desc bd({1, n}, DataType::f32, Tag::ab), yd({m, n}, y, Tag::ab);
    dnnl::primitive_attr attr;
    const bool scaled = x == DataType::u8 && y == DataType::f32;
    if (scaled) {
      attr.set_zero_points(DNNL_ARG_SRC, 0, {117});
      attr.set_output_scales(1 << 1, std::vector<float>(static_cast<size_t>(n), 1e-4F));
    }
    const bool bias = y == DataType::f32;
    const auto desc = bias ? dnnl::matmul::desc(xd, wd, bd, yd) : dnnl::matmul::desc(xd, wd, yd);
    const dnnl::matmul::primitive_desc pd(desc, attr, engine_);
    matmul_ = dnnl::matmul(pd);
    for (const auto& d : {xd, bd, yd}) io_.push_back(allocate(d));
    for (int i = 0; i < copies; ++i) {
      weights_.push_back(allocate(pd.weights_desc()));
      args_.push_back({{DNNL_ARG_SRC, io_[0]}, {DNNL_ARG_WEIGHTS, weights_.back()}, {DNNL_ARG_DST, io_[2]}});
      if (bias) args_.back().insert({DNNL_ARG_BIAS, io_[1]});
    }
  }
  void run(int copy = 0) { matmul_.execute(stream_, args_[static_cast<size_t>(copy)]); }
  uint8_t* x() { return static_cast<uint8_t*>(io_[0].get_data_handle()); }

 private:
  // The same kind of memory as the other side has.
  dnnl::memory allocate(const dnnl::memory::desc& d) {
    blobs_.push_back(std::move(allocate_blob(static_cast<int64_t>(d.get_size()))).value());
    std::memset(blobs_.back().data.get(), 1, d.get_size());
    return {d, engine_, blobs_.back().data.get()};
  }

  std::vector<PackedBlob> blobs_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul matmul_;
  std::vector<dnnl::memory> io_, weights_;
  std::vector<std::unordered_map<int, dnnl::memory>> args_;
};

}  // namespace sprun::bench
