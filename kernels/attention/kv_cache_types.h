// What the per-ISA kernels of the KV cache take: plain data, included by ISA files.
#pragma once

#include <cstdint>

namespace sprun::kernels {

// Row r of x lies at x + r * x_row; rows of the cache lie next to each other, `dim` elements each.
struct KvCacheKernel {
  // Bit patterns of bf16, rounded to nearest even.
  void (*store_bf16)(const float* x, int64_t x_row, int64_t rows, int64_t dim, uint16_t* cache);
  // Codes and one scale a row.
  void (*store_s8)(const float* x, int64_t x_row, int64_t rows, int64_t dim, int8_t* cache, float* scales);
};

}  // namespace sprun::kernels
