#include "kernels/attention/attention_int8_impl.h"

namespace sprun::kernels {

extern constinit const AttentionInt8Kernel attention_int8_sse2 = attn::kInt8Attention<simd::Sse2>;

}  // namespace sprun::kernels
