#include "kernels/attention/attention_int8_impl.h"

namespace sprun::kernels {

extern constinit const AttentionInt8Kernel attention_int8_avx2 = attn::kInt8Attention<simd::Avx2>;

}  // namespace sprun::kernels
