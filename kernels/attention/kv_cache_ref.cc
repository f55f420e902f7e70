// Scalar reference of the KV cache: one element at a time.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/attention/kv_cache_types.h"
#include "runtime/base/half.h"

namespace sprun::kernels {
namespace {

void store_rows_bf16(const float* x, int64_t x_row, int64_t rows, int64_t dim, uint16_t* cache) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t d = 0; d < dim; ++d) cache[r * dim + d] = to_bfloat16(x[r * x_row + d]).bits;
  }
}

void store_row_s8(const float* x, int64_t dim, int8_t* codes, float* scale) {
  const bool finite = std::all_of(x, x + dim, [](float v) { return std::isfinite(v); });
  float peak = 0.0F;
  for (int64_t d = 0; d < dim; ++d) peak = std::max(peak, std::abs(x[d]));
  if (!finite || peak < 0x1p-100F) {
    std::fill(codes, codes + dim, int8_t{0});
    *scale = finite ? 0.0F : std::numeric_limits<float>::quiet_NaN();
    return;
  }
  *scale = peak / 127.0F;
  const float inverse = 127.0F / peak;
  for (int64_t d = 0; d < dim; ++d) codes[d] = static_cast<int8_t>(std::nearbyint(x[d] * inverse));
}

void store_rows_s8(const float* x, int64_t x_row, int64_t rows, int64_t dim, int8_t* cache, float* scales) {
  for (int64_t r = 0; r < rows; ++r) store_row_s8(x + r * x_row, dim, cache + r * dim, scales + r);
}

}  // namespace

extern constinit const KvCacheKernel kv_cache_ref = {.store_bf16 = store_rows_bf16, .store_s8 = store_rows_s8};

}  // namespace sprun::kernels
