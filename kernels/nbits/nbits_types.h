// Arguments and kernel table of the block-quantised weight family. Plain data: ISA files include it.
#pragma once

#include <cstdint>

namespace sprun::kernels {

// Weights W[N, K] of 2, 4 or 8 bits with one scale, and maybe one zero point, per block of block_size inputs:
//   w(n, k) = (q(n, k) - zero(n, k / block_size)) * scale(n, k / block_size)
struct NbitsWeight {
  int64_t n = 0, k = 0;
  int64_t block_size = 32, blocks = 0;  // blocks = ceil(K / block_size); block_size a power of two from 16, or,
                                        // with 8 bits, any multiple of 16
  int bits = 4;
  const uint8_t* data = nullptr;     // [N, blocks, block_size * bits / 8], low bits first, any alignment
  const float* scale = nullptr;      // [N, blocks]
  const uint8_t* zero_u8 = nullptr;  // [N, blocks], one byte each; null with zero_f32 null: 2^(bits - 1)
  const float* zero_f32 = nullptr;   // [N, blocks]

  int64_t row_bytes() const { return blocks * block_size * bits / 8; }
  int64_t padded_k() const { return blocks * block_size; }
};

struct NbitsGemvArgs {
  NbitsWeight w;
  int64_t m = 1;                // rows of X
  const float* x = nullptr;     // [M, x_stride] as arrange() wrote it
  int64_t x_stride = 0;         // arranged_size() of the kernel
  const float* bias = nullptr;  // [N]; null = 0
  float* y = nullptr;           // [M, N]
  int64_t ldy = 0;
  // Some outputs only: y[:, i] is that of output ids[i]. w.n is then still that of the whole weight.
  const int32_t* ids = nullptr;  // [listed]; null = all
  int64_t listed = 0;
};

struct NbitsKernel {
  // Elements of one row of X after arrange(), for a weight of these sizes.
  int64_t (*arranged_size)(const NbitsWeight& w);
  // Writes a row x[K] in the order in which gemv() meets the weights, padded with zeros.
  void (*arrange)(const NbitsWeight& w, const float* x, float* out);
  // Y[:, n_begin, n_end) = X W^T + bias; with ids, places of the list.
  void (*gemv)(const NbitsGemvArgs& args, int64_t n_begin, int64_t n_end);
  // out[k, c] = w(n_begin + c, k) for c < columns, 0 for columns <= c < nr, rows nr apart: one panel of kernels/gemm.
  void (*pack)(const NbitsWeight& w, int64_t n_begin, int64_t columns, int64_t nr, float* out);
};

}  // namespace sprun::kernels
