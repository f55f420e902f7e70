// Linear layers with few rows over compressed weights: choosing a kernel and running it.
//
//   const BsrGemvU8S8Kernel& kernel = *select(bsr_gemv_u8s8_kernels(), available_isas()).kernel;
//   GemmU8S8Args args = ...;  args.w = reinterpret_cast<const int8_t*>(blob);   // pack.h
//   bsr_gemv(kernel, args, workers, parallel_for);
//
// Formula, epilogue and arguments are those of the dense families (kernels/gemm/gemm_types.h):
//   int8  A[m, n] = sum_k (X[m, k] - zx[m]) (W[n, k] - zw[n]) over u8 X, then scales, bias,
//         activation and residual, or A itself as int32
//   bf16  Y = act(alpha X W^T + bias) + residual; X is bf16 as GemmBf16Kernel::convert() makes it, so
//         that a layer gives the same results, up to the order of sums, whether it runs dense or not
// where W is what the blob expands to; weights with a zero point are packed as W - zero, and then
// w_zero_point is null. Layout of the blob: bsr_gemv_types.h. Any M; X of any alignment, nothing past
// row ends is read.
//
// Regime:  bandwidth-bound, M = 1 to about 16: the bytes of the blob are the cost. More rows are
//          taken in blocks of 16, and every block reads the weights again.
// Numeric: int8 exact for K <= 65 793, as the dense family; bf16 sums are reassociated.
// Threads: bsr_gemv() splits the panels by bytes; parallel_for as in kernels/gemm/gemm.h.
// Errors:  none; preconditions are the caller's. Nothing allocates or locks.
// Source:  bitmaps and expansion after the idea of SparAMX (arXiv 2502.12444), in our own layout.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/bsr_gemv/bsr_gemv_types.h"
#include "kernels/registry.h"

namespace sprun::kernels {

std::span<const KernelInfo<BsrGemvU8S8Kernel>> bsr_gemv_u8s8_kernels();
std::span<const KernelInfo<BsrGemvBf16Kernel>> bsr_gemv_bf16_kernels();

// How a product is cut: `parts` runs of panels with about the same number of bytes.
struct GemvSplit {
  const GemvBlob* blob;
  int64_t panels;
  int64_t parts;
  // First panel of part i; i = parts gives `panels`.
  int64_t begin(int64_t i) const;
};

GemvSplit make_gemv_split(const GemvBlob& blob, int64_t m, int workers);

template <class Kernel, class Args, class ParallelFor>
void bsr_gemv(const Kernel& kernel, const Args& args, int workers,
              const ParallelFor& parallel_for) {
  const GemvBlob& blob = *reinterpret_cast<const GemvBlob*>(args.w);
  const GemvSplit split = make_gemv_split(blob, args.m, workers);
  const auto work = [&](int64_t begin, int64_t end, int) {
    const TileRange tiles{0, args.m, split.begin(begin), split.begin(end)};
    if (tiles.panel_begin < tiles.panel_end) kernel.run(args, tiles);
  };
  if (split.parts <= 1) {
    work(0, split.parts, 0);
  } else {
    parallel_for(split.parts, 1, work);
  }
}

}  // namespace sprun::kernels
