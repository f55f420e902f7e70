// Dense GEMM: choosing a kernel, packing, and running it over several workers.
//
//   const GemmF32Kernel& kernel = *select(gemm_f32_kernels(), available_isas()).kernel;
//   std::vector<float> packed(packed_size_f32(n, k, kernel.nr));             // once, at load
//   kernel.pack({w, n, k, k, 1}, 0, num_panels(n, kernel.nr), packed.data());
//   const GemmF32Args args{m, n, k, x, ldx, packed.data(), y, ldy, epilogue};
//   gemm_f32(kernel, args, workers, scratch, parallel_for);
//
// parallel_for(n, grain, fn) must call fn(begin, end, worker) so that the ranges cover [0, n) once,
// with 0 <= worker < workers and no two calls of one worker at the same time.
// scratch: gemm_*_scratch_bytes(), 64-byte aligned, not shared with another running call.
// Nothing here allocates, locks or fails. Formulas and layouts: gemm_types.h.
// Regime: compute-bound from about M = 12 rows; below that each weight byte is streamed once.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/gemm/gemm_types.h"
#include "kernels/gemm/pack.h"
#include "kernels/registry.h"

namespace sprun::kernels {

std::span<const KernelInfo<GemmF32Kernel>> gemm_f32_kernels();
// f32 activations with weights of 8 or 16 bits.
std::span<const KernelInfo<GemmNarrowKernel>> gemm_f32s8_kernels();
std::span<const KernelInfo<GemmNarrowKernel>> gemm_f32f16_kernels();
std::span<const KernelInfo<GemmNarrowKernel>> gemm_f32bf16_kernels();
std::span<const KernelInfo<GemmBf16Kernel>> gemm_bf16_kernels();
std::span<const KernelInfo<GemmU8S8Kernel>> gemm_u8s8_kernels();
std::span<const KernelInfo<QuantizeRowsKernel>> quantize_rows_kernels();

// How a product is cut: units are (row part, panel), panels varying fastest, so that a range of
// units keeps its rows of X in cache and reads each weight once.
struct TileGrid {
  int64_t m, panels;
  int64_t row_parts;  // > 1 only when there are too few panels for the workers
  int64_t grain;      // units that are worth a task; >= units() when one worker should do it all
  int64_t units() const { return row_parts * panels; }
};

// bytes_per_weight: 4, 2 or 1.
TileGrid make_grid(int64_t m, int64_t n, int64_t k, int64_t nr, int bytes_per_weight, int workers);

// Calls run(TileRange) for the units [begin, end) of the grid.
template <class Run>
void for_each_tile(const TileGrid& g, int64_t begin, int64_t end, const Run& run) {
  while (begin < end) {
    const int64_t part = begin / g.panels;
    const int64_t part_end = (part + 1) * g.panels;
    const int64_t stop = end < part_end ? end : part_end;
    run(TileRange{part * g.m / g.row_parts, (part + 1) * g.m / g.row_parts, begin % g.panels,
                  stop - part * g.panels});
    begin = stop;
  }
}

constexpr int64_t align_scratch(int64_t bytes) { return (bytes + 63) / 64 * 64; }

template <class Kernel>
int64_t gemm_scratch_bytes(const Kernel& kernel, int workers) {
  return align_scratch(kernel.scratch_bytes) * workers;
}

// Row stride of the bf16 copy of X. One line more than needed: strides that are a multiple of
// 4 KiB would put all rows of a tile into one L1 set.
constexpr int64_t bf16_ldx(int64_t k) { return (k + 31) / 32 * 32 + 32; }

inline int64_t gemm_bf16_scratch_bytes(const GemmBf16Kernel& kernel, int64_t m, int64_t k,
                                       int workers) {
  return gemm_scratch_bytes(kernel, workers) + align_scratch(m * bf16_ldx(k) * 2);
}

template <class Kernel, class Args, class ParallelFor>
void run_grid(const Kernel& kernel, const Args& args, const TileGrid& grid, void* scratch,
              const ParallelFor& parallel_for) {
  char* base = static_cast<char*>(scratch);
  const auto work = [&](int64_t begin, int64_t end, int worker) {
    void* own = base + align_scratch(kernel.scratch_bytes) * worker;
    for_each_tile(grid, begin, end, [&](const TileRange& t) { kernel.run(args, t, own); });
  };
  if (grid.grain >= grid.units()) {
    work(0, grid.units(), 0);
  } else {
    parallel_for(grid.units(), grid.grain, work);
  }
}

// Y = act(alpha X W^T + bias) + residual.
template <class ParallelFor>
void gemm_f32(const GemmF32Kernel& kernel, const GemmF32Args& args, int workers, void* scratch,
              const ParallelFor& parallel_for) {
  run_grid(kernel, args, make_grid(args.m, args.n, args.k, kernel.nr, 4, workers), scratch,
           parallel_for);
}

// The same with weights of 8 or 16 bits; bytes_per_weight 1 or 2.
template <class ParallelFor>
void gemm_narrow(const GemmNarrowKernel& kernel, const GemmNarrowArgs& args, int bytes_per_weight,
                 int workers, void* scratch, const ParallelFor& parallel_for) {
  run_grid(kernel, args, make_grid(args.m, args.n, args.k, kernel.nr, bytes_per_weight, workers),
           scratch, parallel_for);
}

// The same with u8 activations and s8 weights.
template <class ParallelFor>
void gemm_u8s8(const GemmU8S8Kernel& kernel, const GemmU8S8Args& args, int workers, void* scratch,
               const ParallelFor& parallel_for) {
  run_grid(kernel, args, make_grid(args.m, args.n, args.k, kernel.nr, 1, workers), scratch,
           parallel_for);
}

// The same with bf16 weights; x is f32 and is rounded to bf16 here. args.x and args.ldx are unused.
template <class ParallelFor>
void gemm_bf16(const GemmBf16Kernel& kernel, const float* x, int64_t ldx, GemmBf16Args args,
               int workers, void* scratch, const ParallelFor& parallel_for) {
  uint16_t* half = reinterpret_cast<uint16_t*>(static_cast<char*>(scratch) +
                                               gemm_scratch_bytes(kernel, workers));
  const int64_t ld = bf16_ldx(args.k);
  const auto convert = [&](int64_t begin, int64_t end, int) {
    kernel.convert(x + begin * ldx, ldx, end - begin, args.k, half + begin * ld, ld);
  };
  constexpr int64_t kElementsPerTask = 64 * 1024;
  const int64_t grain = kElementsPerTask / (args.k + 1) + 1;
  if (workers == 1 || args.m <= grain) {
    convert(0, args.m, 0);
  } else {
    parallel_for(args.m, grain, convert);
  }
  args.x = half;
  args.ldx = ld;
  run_grid(kernel, args, make_grid(args.m, args.n, args.k, kernel.nr, 2, workers), scratch,
           parallel_for);
}

// Packs a B that is not constant into `packed` (packed_size_f32 elements), for gemm_f32.
template <class ParallelFor>
void gemm_f32_pack_b(const GemmF32Kernel& kernel, const WeightSource<float>& b, int workers,
                     float* packed, const ParallelFor& parallel_for) {
  const int64_t panels = num_panels(b.n, kernel.nr);
  const int64_t grain = 64 * 1024 / (b.k * kernel.nr + 1) + 1;
  const auto work = [&](int64_t begin, int64_t end, int) { kernel.pack(b, begin, end, packed); };
  if (workers == 1 || panels <= grain) {
    work(0, panels, 0);
  } else {
    parallel_for(panels, grain, work);
  }
}

}  // namespace sprun::kernels
