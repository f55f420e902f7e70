#include "kernels/attention/attention_int8_impl.h"

namespace sprun::kernels {

extern constinit const AttentionInt8Kernel attention_int8_avxvnni = attn::kInt8Attention<simd::AvxVnni>;

}  // namespace sprun::kernels
