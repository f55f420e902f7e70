// Picks the kernel of the KV cache and hands rows to the pool.
#include "kernels/attention/kv_cache.h"

#include <algorithm>

#include "kernels/isa.h"
#include "runtime/base/thread_pool.h"

namespace sprun::kernels {

#define SPRUN_KV_CACHE(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const KvCacheKernel symbol;)
#include "kernels/attention/attention.def"

namespace {

constexpr KernelInfo<KvCacheKernel> kKernels[] = {
#define SPRUN_KV_CACHE SPRUN_KERNEL_ENTRY
#include "kernels/attention/attention.def"
};

constexpr int64_t kTaskFloats = 32 * 1024;  // a few us: less is not worth a task of its own

// Rows [t, t + n) of kv head g.
void store_rows(const KvCacheKernel& kernel, const KvCacheRows& r, const KvCacheView& cache, int64_t position,
                int64_t g, int64_t t, int64_t n) {
  const float* x = r.x + g * r.x_head + t * r.x_row;
  const int64_t at = g * cache.capacity + position + t;
  if (cache.dtype == DType::kS8) {
    kernel.store_s8(x, r.x_row, n, r.dim, static_cast<int8_t*>(cache.data) + at * r.dim, cache.scales + at);
  } else if (cache.dtype == DType::kBf16) {
    kernel.store_bf16(x, r.x_row, n, r.dim, static_cast<uint16_t*>(cache.data) + at * r.dim);
  } else {
    float* to = static_cast<float*>(cache.data) + at * r.dim;
    for (int64_t i = 0; i < n; ++i) std::copy_n(x + i * r.x_row, r.dim, to + i * r.dim);
  }
}

}  // namespace

std::span<const KernelInfo<KvCacheKernel>> kv_cache_kernels() { return kKernels; }

void kv_cache_store(const KvCacheRows& rows, const KvCacheView& cache, int64_t position, ThreadPool& pool,
                    const KvCacheKernel* kernel) {
  if (rows.rows <= 0) return;
  if (kernel == nullptr) kernel = select(kv_cache_kernels(), available_isas()).kernel;
  const int64_t grain = kTaskFloats / (rows.dim + 1) + 1;
  pool.parallel_for(rows.kv_heads * rows.rows, grain, [&](int64_t begin, int64_t end, int) {
    while (begin < end) {
      const int64_t g = begin / rows.rows, t = begin % rows.rows, n = std::min(end - begin, rows.rows - t);
      store_rows(*kernel, rows, cache, position, g, t, n);
      begin += n;
    }
  });
}

}  // namespace sprun::kernels
