// The reference of the block-quantised weight family: any bits, any block size, one element at a time.
#include "kernels/nbits/nbits_types.h"

namespace sprun::kernels {
namespace {

float weight_at(const NbitsWeight& w, int64_t n, int64_t k) {
  const int64_t bit = k * w.bits;
  const int code = (w.data[n * w.row_bytes() + bit / 8] >> (bit % 8)) & ((1 << w.bits) - 1);
  const int64_t block = n * w.blocks + k / w.block_size;
  float zero = static_cast<float>(1 << (w.bits - 1));
  if (w.zero_u8 != nullptr) zero = static_cast<float>(w.zero_u8[block]);
  if (w.zero_f32 != nullptr) zero = w.zero_f32[block];
  return (static_cast<float>(code) - zero) * w.scale[block];
}

int64_t arranged_size(const NbitsWeight& w) { return w.k; }

void arrange(const NbitsWeight& w, const float* x, float* out) {
  for (int64_t k = 0; k < w.k; ++k) out[k] = x[k];
}

void gemv(const NbitsGemvArgs& args, int64_t n_begin, int64_t n_end) {
  for (int64_t m = 0; m < args.m; ++m) {
    for (int64_t n = n_begin; n < n_end; ++n) {
      const int64_t row = args.ids == nullptr ? n : args.ids[n];
      float sum = 0;
      for (int64_t k = 0; k < args.w.k; ++k) sum += args.x[m * args.x_stride + k] * weight_at(args.w, row, k);
      args.y[m * args.ldy + n] = sum + (args.bias == nullptr ? 0.0F : args.bias[row]);
    }
  }
}

void pack(const NbitsWeight& w, int64_t n_begin, int64_t columns, int64_t nr, float* out) {
  for (int64_t k = 0; k < w.k; ++k) {
    for (int64_t c = 0; c < nr; ++c) out[k * nr + c] = c < columns ? weight_at(w, n_begin + c, k) : 0.0F;
  }
}

}  // namespace

extern constinit const NbitsKernel nbits_ref = {arranged_size, arrange, gemv, pack};

}  // namespace sprun::kernels
