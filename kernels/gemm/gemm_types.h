// Argument structs and kernel tables of the dense GEMM families. Plain data: ISA files include it.
//
// All families compute a linear layer over pre-packed weights W[N, K] (N outputs, K inputs):
//   Y[m, n] = act(alpha * sum_k X[m, k] * W[n, k] + bias[n]) + residual[m, n]
// M rows of X (tokens), row-major, any alignment, ldx >= K; Y row-major, ldy >= N. Sizes and
// strides are in elements. M, N, K >= 0; K = 0 gives the sum 0. Y overlaps neither X nor W.
// `residual` may be Y itself (same ld): each element is read before it is written.
// Errors: none; preconditions are the caller's. Threads: a kernel call runs on the calling thread.
#pragma once

#include <cstdint>

namespace sprun::kernels {

enum class Activation : uint8_t {
  kNone,
  kRelu,          // max(0, v)
  kGeluErf,       // v/2 (1 + erf(v / sqrt 2))
  kGeluErfCodes,  // kGeluErf with an absolute error below 7e-7, in fewer operations: for results that become 8-bit codes
  kGeluTanh,      // v/2 (1 + tanh(sqrt(2/pi) (v + 0.044715 v^3)))
  kQuickGelu,     // v sigmoid(1.702 v)
  kSilu,          // v sigmoid(v)
  kTanh,
  kSigmoid,
};

struct Epilogue {
  const float* bias = nullptr;      // [N]; null = 0
  const float* residual = nullptr;  // [M, N]; null = 0; added after the activation
  int64_t ld_residual = 0;
  float alpha = 1.0F;
  Activation activation = Activation::kNone;
};

// Weight matrix before packing: W(n, k) = data[n * stride_n + k * stride_k].
// ONNX MatMul stores [K, N]: stride_n = 1; Gemm with transB stores [N, K]: stride_k = 1.
template <class T>
struct WeightSource {
  const T* data;
  int64_t n, k;
  int64_t stride_n, stride_k;
};

// Part of a product for one worker: rows [m_begin, m_end) and weight panels of nr outputs.
struct TileRange {
  int64_t m_begin, m_end;
  int64_t panel_begin, panel_end;
};

// ---- f32 -------------------------------------------------------------------------------------
// Packed weights: panels of nr outputs, [ceil(N / nr), K, nr], outputs past N are 0.
struct GemmF32Args {
  int64_t m, n, k;
  const float* x;  // [M, K]
  int64_t ldx;
  const float* w;  // packed for the kernel that runs
  float* y;        // [M, N]
  int64_t ldy;
  Epilogue epilogue;
};

struct GemmF32Kernel {
  int64_t nr;             // outputs per panel
  int64_t scratch_bytes;  // per worker, 64-byte aligned; independent of the problem
  void (*run)(const GemmF32Args& args, const TileRange& tiles, void* scratch);
  // Writes panels [panel_begin, panel_end) of `w` to `packed` (the start of all panels).
  void (*pack)(const WeightSource<float>& w, int64_t panel_begin, int64_t panel_end,
               float* packed);
};

// ---- f32 with narrow weights -----------------------------------------------------------------
// X, sums and Y are f32; weights stay 8- or 16-bit in memory and become f32 in registers:
//   W[n, k] = q[n, k] * scale[b, n] + shift[b, n],   b = k / block_size,   shift = -zero * scale
// Packed q: [ceil(N / nr), K, nr] s8, f16 or bf16 (pack_narrow), outputs past N are 0.
struct GemmNarrowArgs {
  int64_t m = 0, n = 0, k = 0;
  const float* x = nullptr;  // [M, K]
  int64_t ldx = 0;
  const void* w = nullptr;
  // s8 only: [panels, ceil(K / block_size), 2, nr], scales then shifts; null = no blocks.
  const float* block_params = nullptr;
  int64_t block_size = 0;        // >= 1 with blocks
  const float* scale = nullptr;  // [panels * nr] without blocks; null = 1
  float* y = nullptr;            // [M, N]
  int64_t ldy = 0;
  Epilogue epilogue;
};

struct GemmNarrowKernel {
  int64_t nr;
  int64_t scratch_bytes;
  void (*run)(const GemmNarrowArgs& args, const TileRange& tiles, void* scratch);
};

// ---- bf16 ------------------------------------------------------------------------------------
// Packed weights: [ceil(N / nr), ceil(K / 2), nr, 2] bf16, padded with 0. X is rounded to bf16
// (nearest even), products are summed in f32.
struct GemmBf16Args {
  int64_t m, n, k;
  const uint16_t* x;  // [M, ldx] bf16 from convert(); ldx even and >= K, x[m, K] = 0 for odd K
  int64_t ldx;
  const uint16_t* w;
  float* y;
  int64_t ldy;
  Epilogue epilogue;
};

struct GemmBf16Kernel {
  int64_t nr;
  int64_t scratch_bytes;
  void (*run)(const GemmBf16Args& args, const TileRange& tiles, void* scratch);
  void (*pack)(const WeightSource<float>& w, int64_t panel_begin, int64_t panel_end,
               uint16_t* packed);
  // y[r, 0..k) = bf16(x[r, 0..k)), zero up to ldy, for `rows` rows.
  void (*convert)(const float* x, int64_t ldx, int64_t rows, int64_t k, uint16_t* y, int64_t ldy);
};

// ---- u8 x s8 ---------------------------------------------------------------------------------
// Packed weights: [ceil(N / nr), ceil(K / 4), nr, 4] s8, padded with 0.
//   A[m, n] = sum_k (X[m, k] - zx[m]) * (W[n, k] - zw[n])        exact int32 for K <= 65 793
//   y_s32   = A[m, n]                                            when y_s32 is set, else
//   y       = act(sx[m] * sw[n] * A[m, n] + bias[n]) + residual  (alpha is not used)
struct GemmU8S8Args {
  int64_t m = 0, n = 0, k = 0;
  const uint8_t* x = nullptr;  // [M, K]
  int64_t ldx = 0;
  const int8_t* w = nullptr;
  const int32_t* w_sum = nullptr;         // [panels * nr] sum_k W[n, k], from the packer
  const int32_t* x_zero_point = nullptr;  // zx; null = 0
  int64_t x_zero_point_stride = 0;        // 0: one for all rows, 1: per row
  const int32_t* w_zero_point = nullptr;  // zw; null = 0; needs x_sum
  int64_t w_zero_point_stride = 0;        // 0: one for all outputs, 1: per output
  const int32_t* x_sum = nullptr;         // [M] sum_k X[m, k]
  const float* x_scale = nullptr;         // sx
  int64_t x_scale_stride = 0;
  const float* w_scale = nullptr;         // sw
  int64_t w_scale_stride = 0;
  float* y = nullptr;  // [M, N]
  int32_t* y_s32 = nullptr;
  int64_t ldy = 0;
  Epilogue epilogue;
};

struct GemmU8S8Kernel {
  int64_t nr;
  int64_t scratch_bytes;
  void (*run)(const GemmU8S8Args& args, const TileRange& tiles, void* scratch);
};

// ---- f32 -> u8 -------------------------------------------------------------------------------
struct QuantizeRowsKernel {
  // Smallest and largest element of x[rows, k]; NaNs are skipped; +inf and -inf when there is none.
  void (*min_max)(const float* x, int64_t ldx, int64_t rows, int64_t k, float* min, float* max);
  // y[r, i] = saturate_u8(round_half_even(x[r, i] / scale) + zero_point); NaN gives 0.
  // sums[r] = sum of y[r, :] when `sums` is not null.
  void (*quantize)(const float* x, int64_t ldx, int64_t rows, int64_t k, float scale,
                   int32_t zero_point, uint8_t* y, int64_t ldy, int32_t* sums);
};

}  // namespace sprun::kernels
