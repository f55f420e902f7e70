#include "kernels/attention/attention_bf16_impl.h"

namespace sprun::kernels {

extern constinit const AttentionKernel attention_bf16_avx512bf16 = attn::kBf16Attention<simd::Avx512Bf16>;

}  // namespace sprun::kernels
