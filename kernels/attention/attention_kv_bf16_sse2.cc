#include "kernels/attention/attention_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_kv_bf16_sse2 = attn::kAttention<simd::Sse2, uint16_t>;

}  // namespace sprun::kernels
