#include "kernels/attention/kv_cache_impl.h"

namespace sprun::kernels {

extern constinit const KvCacheKernel kv_cache_avx2 = attn::kKvCache<simd::Avx2>;

}  // namespace sprun::kernels
