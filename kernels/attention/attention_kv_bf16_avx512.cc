#include "kernels/attention/attention_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_kv_bf16_avx512 = attn::kAttention<simd::Avx512, uint16_t>;

}  // namespace sprun::kernels
