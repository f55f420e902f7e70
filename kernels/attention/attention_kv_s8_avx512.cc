#include "kernels/attention/attention_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_kv_s8_avx512 = attn::kAttention<simd::Avx512, int8_t>;

}  // namespace sprun::kernels
