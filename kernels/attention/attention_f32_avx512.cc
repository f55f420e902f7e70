#include "kernels/attention/attention_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_f32_avx512 = attn::kAttention<simd::Avx512, float>;

}  // namespace sprun::kernels
