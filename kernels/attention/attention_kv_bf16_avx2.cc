#include "kernels/attention/attention_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_kv_bf16_avx2 = attn::kAttention<simd::Avx2, uint16_t>;

}  // namespace sprun::kernels
