// Linear layers with few rows over compressed weights: choosing a kernel and running it.
//
//   const BsrGemvU8S8Kernel& kernel = *select(bsr_gemv_u8s8_kernels(), available_isas()).kernel;
//   GemmU8S8Args args = ...;  args.w = reinterpret_cast<const int8_t*>(blob);   // pack.h
//   bsr_gemv(kernel, args, workers, parallel_for);
//
// Formula, epilogue and arguments are those of the dense families (kernels/gemm/gemm_types.h):
//   int8  A[m, n] = sum_k (X[m, k] - zx[m]) (W[n, k] - zw[n]) over u8 X, then scales, bias,
//         activation and residual, or A itself as int32
//   bf16  Y = act(alpha X W^T + bias) + residual; X is bf16 as GemmBf16Kernel::convert() makes it,
//         so that a layer gives the same results, up to the order of sums, dense or compressed
// where W is what the blob expands to; weights with a zero point are packed as W - zero, and then
// w_zero_point is null. Layout of the blob: bsr_gemv_types.h. Any M; X of any alignment, nothing
// past row ends is read.
//
// Regime:  bandwidth-bound: the bytes of the blob are the cost while M is small. Any M is right
//          (blocks of 16 rows, each reads the weights again), but the arithmetic is that of all
//          weights: at 80 % zeros, one core, 2048 x 8192, bitmap and 1x4 are 3.3x dense for M = 2,
//          2.2x to 2.5x for M = 4, 1.2x for M = 8 and 0.8x for M = 16. On AVX2 without VNNI, M = 1,
//          1x4 is 1.4x and the bitmap 0.7x.
// Numeric: int8 exact for K <= 65 793, as the dense family; bf16 sums are reassociated.
// Cost:    the larger of bytes / bandwidth and N * K / 64 times these cycles of one core (M = 1,
//          weights in L2, Zen 5 at 3.85 GHz, 2026-11; a further row of X adds about 0.6 with
//          AVX-512):
//            int8           avx512vbmi2  avx512vnni  avx512  avxvnni  avx2
//            bitmap         2.0 to 2.9   9.2         11      10       12
//            1x4 blocks     2.0 to 2.5   2.0 to 2.5  3.7     4.1      6.2
//            1:4            2.2          2.2         4.0     4.5      8.4
//            2:4            4.4          4.4         6.1     8.8      13
//          (the lower of two figures from 70 % zeros on). So 2:4 is worth its own format only where
//          VBMI2 is missing and AVX-512 or AVX-VNNI is there: its bitmap has the same bytes.
//          bf16 bitmap: 4.1 to 5.4 avx512vbmi2bf16, 5.2 to 6.5 avx512vbmi2, 9.1 avx512bf16,
//          11 avx512, 17 avx2.
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
