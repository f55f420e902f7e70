#include "kernels/attention/attention_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_kv_s8_sse2 = attn::kAttention<simd::Sse2, int8_t>;

}  // namespace sprun::kernels
