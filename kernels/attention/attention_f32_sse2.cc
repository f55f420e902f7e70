#include "kernels/attention/attention_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_f32_sse2 = attn::kAttention<simd::Sse2, float>;

}  // namespace sprun::kernels
