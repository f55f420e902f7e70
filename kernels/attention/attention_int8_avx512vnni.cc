#include "kernels/attention/attention_int8_impl.h"

namespace sprun::kernels {

extern constinit const AttentionInt8Kernel attention_int8_avx512vnni = attn::kInt8Attention<simd::Avx512Vnni>;

}  // namespace sprun::kernels
