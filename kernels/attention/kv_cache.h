// Writes new keys or values into the cache that attention() reads: f32, bf16, or 8-bit codes with a scale a row.
//
//   KvCacheRows rows{.kv_heads = 8, .rows = t, .dim = 128, .x = k, .x_head = 128, .x_row = 8 * 128};
//   kv_cache_store(rows, {.dtype = DType::kS8, .data = codes, .scales = scales, .capacity = 4096}, position, pool);
//   ...
//   args.k = codes, args.k_dtype = args.v_dtype = DType::kS8, args.k_scale = scales, args.scale_head = 4096;
//   args.k_strides = bhsd_strides(8, 4096, 128);
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/attention/kv_cache_types.h"
#include "kernels/registry.h"
#include "sprun/dtype.h"

namespace sprun {
class ThreadPool;
}

namespace sprun::kernels {

// New rows: element (g, t, d) lies at x[g * x_head + t * x_row + d].
struct KvCacheRows {
  int64_t kv_heads = 1, rows = 0, dim = 0;
  const float* x = nullptr;
  int64_t x_head = 0, x_row = 0;
};

// Keys or values of one layer: data [kv_heads, capacity, dim] of kF32, kBf16 or kS8; of kS8 also scales
// [kv_heads, capacity].
struct KvCacheView {
  DType dtype = DType::kF32;
  void* data = nullptr;
  float* scales = nullptr;
  int64_t capacity = 0;
};

constexpr int64_t kv_cache_data_bytes(DType dtype, int64_t kv_heads, int64_t capacity, int64_t dim) {
  return kv_heads * capacity * dim * (dtype == DType::kS8 ? 1 : dtype == DType::kBf16 ? 2 : 4);
}
constexpr int64_t kv_cache_scale_bytes(DType dtype, int64_t kv_heads, int64_t capacity) {
  return dtype == DType::kS8 ? kv_heads * capacity * int64_t{sizeof(float)} : 0;
}

// Writes the rows to [position, position + rows) of every kv head and touches nothing else.
//   kBf16:  nearest, ties to even; NaN stays NaN
//   kS8:    m = max |x| of the row, scale = m / 127, code = round_half_even(x * (127 / m)), in -127 .. 127
//           m < 2^-100: scale 0, codes 0; a value that is not finite: scale NaN, codes 0, so attention gives NaN
// 0 <= position, position + rows <= capacity; x does not overlap the cache; data and scales aligned to their elements.
// Numeric: every variant gives the same bits.
// Threads: rows are shared out on the pool; calls on different rows may run at once.
// Regime:  bandwidth-bound.
void kv_cache_store(const KvCacheRows& rows, const KvCacheView& cache, int64_t position, ThreadPool& pool,
                    const KvCacheKernel* kernel = nullptr);

// Best first.
std::span<const KernelInfo<KvCacheKernel>> kv_cache_kernels();

}  // namespace sprun::kernels
