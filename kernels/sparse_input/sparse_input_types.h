// Arguments and kernel table of the sparse-input family. Plain data: ISA files include it.
#pragma once

#include <cstdint>

#include "kernels/gemm/gemm_types.h"

namespace sprun::kernels {

inline constexpr int64_t kSparseInputRows = 8;    // rows of X at most
inline constexpr int64_t kSparseInputGroup = 4;   // listed inputs come in groups of this many
inline constexpr int64_t kSparseInputLine = 64;   // panels are whole multiples of this many outputs

// Y[m, n] = act(alpha * scale[n] * sum over i of x[m, i] * W[ids[i], n] + bias[n]) + residual[m, n]
struct SparseInputArgs {
  int64_t m = 0;  // 1 to kSparseInputRows
  int64_t n = 0, k = 0;
  const int32_t* ids = nullptr;  // [listed], inputs in ascending order
  const float* x = nullptr;      // [m, ldx] their values
  int64_t listed = 0, ldx = 0;   // listed: a multiple of kSparseInputGroup, padded with repeated ids and zeros in x
  const void* w = nullptr;       // [panels, K, width] in the type of the kernel, outputs past N are 0
  int64_t width = 0;             // outputs of a panel, a multiple of kSparseInputLine
  const float* scale = nullptr;  // [N]; null = 1
  // Scales of blocks of inputs instead, and with `shifts` what is added to each weight:
  //   W[i, n] = code[i, n] * scale[b, n] + shift[b, n],   b = i / block_size
  // Then no group of the list may touch two blocks.
  const float* block_params = nullptr;  // [panels, blocks, 1 or 2, width]
  int64_t block_size = 0, blocks = 0;
  bool shifts = false;
  float* y = nullptr;
  int64_t ldy = 0;
  Epilogue epilogue;
};

struct SparseInputKernel {
  // Outputs of panels [panel_begin, panel_end). acc: m * width floats, 64-byte aligned, of this worker alone.
  void (*run)(const SparseInputArgs& args, int64_t panel_begin, int64_t panel_end, float* acc);
};

}  // namespace sprun::kernels
