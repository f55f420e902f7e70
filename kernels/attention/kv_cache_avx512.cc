#include "kernels/attention/kv_cache_impl.h"

namespace sprun::kernels {

extern constinit const KvCacheKernel kv_cache_avx512 = attn::kKvCache<simd::Avx512>;

}  // namespace sprun::kernels
