// Packs and quantises weights once, when a model is loaded.
//
// f32 and bf16 weights are packed by the kernel that will run (GemmF32Kernel::pack, it knows its
// layout); int8 weights by pack_s8(), the same for every kernel but for nr.
// Thread safety: panels are independent, so ranges may be packed in parallel.
#pragma once

#include <cstdint>

#include "kernels/gemm/gemm_types.h"

namespace sprun::kernels {

constexpr int64_t num_panels(int64_t n, int64_t nr) { return (n + nr - 1) / nr; }

// Elements of the packed forms.
constexpr int64_t packed_size_f32(int64_t n, int64_t k, int64_t nr) {
  return num_panels(n, nr) * nr * k;
}
constexpr int64_t packed_size_bf16(int64_t n, int64_t k, int64_t nr) {
  return num_panels(n, nr) * nr * ((k + 1) / 2 * 2);
}
constexpr int64_t packed_size_s8(int64_t n, int64_t k, int64_t nr) {
  return num_panels(n, nr) * nr * ((k + 3) / 4 * 4);
}

// Packs panels [begin, end) of s8 weights to [panel, ceil(K / 4), nr, 4] and sets
// sums[n] = sum_k W[n, k] (as stored: before any zero point) for the outputs of these panels.
// `sums` holds num_panels * nr elements; those past N are set to 0.
void pack_s8(const WeightSource<int8_t>& w, int64_t nr, int64_t begin, int64_t end,
             int8_t* packed, int32_t* sums);

// The same for u8 weights: stores W - 128, so the caller subtracts 128 from their zero points.
void pack_u8(const WeightSource<uint8_t>& w, int64_t nr, int64_t begin, int64_t end,
             int8_t* packed, int32_t* sums);

// Packs panels [begin, end) of 8- or 16-bit weights to [panel, K, nr] for the narrow families;
// stores W ^ flip (0x80 makes u8 - 128 as s8 of u8), 0 for outputs past N.
void pack_narrow(const WeightSource<uint8_t>& w, int64_t nr, int64_t begin, int64_t end,
                 uint8_t flip, uint8_t* packed);
void pack_narrow(const WeightSource<uint16_t>& w, int64_t nr, int64_t begin, int64_t end,
                 uint16_t flip, uint16_t* packed);

// Symmetric weights, one scale per output n of [begin, end): scale = max|W[n, :]| / 127 (1 for a
// zero row), q[n, k] = round_half_even(W[n, k] / scale); q is [N, K] row-major.
void quantize_weights_s8(const WeightSource<float>& w, int64_t begin, int64_t end, int8_t* q,
                         float* scale);

// y[i] = x[i] + 128: turns s8 activations into the u8 that kernels take (zero point + 128 too).
void s8_to_u8(const int8_t* x, int64_t n, uint8_t* y);

}  // namespace sprun::kernels
