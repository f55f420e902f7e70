#include "kernels/attention/attention_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_f32_avx2 = attn::kAttention<simd::Avx2, float>;

}  // namespace sprun::kernels
