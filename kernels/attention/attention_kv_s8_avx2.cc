#include "kernels/attention/attention_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_kv_s8_avx2 = attn::kAttention<simd::Avx2, int8_t>;

}  // namespace sprun::kernels
