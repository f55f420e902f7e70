// Running one or several packed weights that share X as one parallel loop over panels, and packing constants.
//
// Q/K/V projections are three weights with the same input: their panels are numbered through, so that one parallel
// region covers all of them, each with its own output, bias and residual.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "graph/ops/op.h"
#include "kernels/gemm/gemm.h"
#include "kernels/registry.h"
#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"
#include "sprun/tensor.h"

namespace sprun::graph {

inline constexpr int kMaxSegments = 8;

// Panels of several weights in one numbering: segment s has [first[s], first[s + 1]).
struct PanelMap {
  int count = 0;
  std::array<int64_t, kMaxSegments + 1> first{};

  void add(int64_t panels) {
    first[static_cast<size_t>(count + 1)] = first[static_cast<size_t>(count)] + panels;
    ++count;
  }
  int64_t total() const { return first[static_cast<size_t>(count)]; }

  // Calls fn(segment, panel_begin, panel_end) with local panel numbers for the global range [begin, end).
  template <class Fn>
  void for_each(int64_t begin, int64_t end, const Fn& fn) const {
    for (int s = 0; s < count; ++s) {
      const int64_t base = first[static_cast<size_t>(s)];
      const int64_t from = std::max(begin, base), to = std::min(end, first[static_cast<size_t>(s + 1)]);
      if (from < to) fn(s, from - base, to - base);
    }
  }
};

// Runs kernel over all segments. make_args(segment) gives the arguments of one weight; after(segment, tile) is called
// when that tile has been written. scratch: gemm_scratch_bytes(kernel, workers).
template <class Kernel, class MakeArgs, class After>
void run_segments(ThreadPool& pool, const Kernel& kernel, const kernels::TileGrid& grid, const PanelMap& panels,
                  void* scratch, const MakeArgs& make_args, const After& after) {
  const auto work = [&](int64_t begin, int64_t end, int worker) {
    void* own = static_cast<char*>(scratch) + kernels::align_scratch(kernel.scratch_bytes) * worker;
    kernels::for_each_tile(grid, begin, end, [&](const kernels::TileRange& t) {
      panels.for_each(t.panel_begin, t.panel_end, [&](int segment, int64_t from, int64_t to) {
        const kernels::TileRange tile = {t.m_begin, t.m_end, from, to};
        kernel.run(make_args(segment), tile, own);
        after(segment, tile);
      });
    });
  };
  if (grid.grain >= grid.units()) return work(0, grid.units(), 0);
  pool.parallel_for(grid.units(), grid.grain, work);
}

// A constant weight seen as W[n, k] = elements[n * stride_n + k * stride_k].
struct WeightConstant {
  const Tensor* tensor = nullptr;
  int64_t n = 0, k = 0, stride_n = 0, stride_k = 0;

  // trans: the matrix is stored [N, K]; else [K, N] as ONNX MatMul has it.
  static WeightConstant matrix(const Tensor& tensor, bool trans) {
    const int64_t n = tensor.shape()[trans ? 0 : 1], k = tensor.shape()[trans ? 1 : 0];
    return {&tensor, n, k, trans ? k : 1, trans ? 1 : n};
  }
  // False for empty weights, and where padding N to whole panels would multiply a large weight.
  bool worth_packing(int64_t nr) const;
};

// Weights in the f32 layout of `info`, from the cache or packed now. Constants may be f32, f16 or bf16.
// kResourceLimit when memory is short.
Result<PackedBlob> pack_f32(PackedCache& cache, const kernels::KernelInfo<kernels::GemmF32Kernel>& info,
                            const WeightConstant& weight);
// The same, rounded to bf16.
Result<PackedBlob> pack_bf16(PackedCache& cache, const kernels::KernelInfo<kernels::GemmBf16Kernel>& info,
                             const WeightConstant& weight);

// int8 weights in kernel layout with what the kernel wants beside them. Pointers point into `blob`.
struct PackedS8 {
  PackedBlob blob;
  const int8_t* weights = nullptr;
  const int32_t* sums = nullptr;  // [N]
  const float* scale = nullptr;   // [N]; only from quantise_s8
};
// u8 or s8 constants as they are (u8 as W - 128).
Result<PackedS8> pack_s8(PackedCache& cache, const kernels::KernelInfo<kernels::GemmU8S8Kernel>& info,
                         const WeightConstant& weight);
// f32 constants quantised per output channel, symmetric; scale is multiplied by alpha.
Result<PackedS8> quantise_s8(PackedCache& cache, const kernels::KernelInfo<kernels::GemmU8S8Kernel>& info,
                             const WeightConstant& weight, float alpha);

// Copies reasons of the kernel registry into the form that plans keep.
void append_rejections(std::vector<Rejection>& to, const std::vector<kernels::Rejection>& from);

// "compute-bound" or "bandwidth-bound" for M rows.
std::string gemm_regime(int64_t m);

}  // namespace sprun::graph
