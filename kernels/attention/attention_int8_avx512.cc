#include "kernels/attention/attention_int8_impl.h"

namespace sprun::kernels {

extern constinit const AttentionInt8Kernel attention_int8_avx512 = attn::kInt8Attention<simd::Avx512>;

}  // namespace sprun::kernels
