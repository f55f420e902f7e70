#include "kernels/attention/kv_cache_impl.h"

namespace sprun::kernels {

extern constinit const KvCacheKernel kv_cache_sse2 = attn::kKvCache<simd::Sse2>;

}  // namespace sprun::kernels
