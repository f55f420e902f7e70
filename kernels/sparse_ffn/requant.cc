#include "kernels/sparse_ffn/requant.h"

#include <algorithm>

namespace sprun::kernels {
namespace {

constexpr int64_t kBlock = 512;

void round_to_codes(const QuantizeRowsKernel& quantize, float scale, int32_t zero_point, float* v, int64_t n) {
  uint8_t codes[kBlock];
  quantize.quantize(v, n, 1, n, scale, zero_point, codes, n, nullptr);
  for (int64_t i = 0; i < n; ++i) v[i] = static_cast<float>(codes[i] - zero_point) * scale;
}

}  // namespace

void requantize(const QuantizeRowsKernel& quantize, const FfnRequant& requant, int64_t first, const int32_t* ids,
                float* v, int64_t n) {
  for (int64_t at = 0; at < n; at += kBlock) {
    const int64_t count = std::min(kBlock, n - at);
    for (int s = 0; s < requant.count; ++s) {
      const FfnRequant::Stage& stage = requant.stages[s];
      if (stage.scale > 0) {
        round_to_codes(quantize, stage.scale, stage.zero_point, v + at, count);
      } else if (ids == nullptr) {
        for (int64_t i = at; i < at + count; ++i) v[i] += stage.offset[first + i];
      } else {
        for (int64_t i = at; i < at + count; ++i) v[i] += stage.offset[ids[i]];
      }
    }
  }
}

}  // namespace sprun::kernels
