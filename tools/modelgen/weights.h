// Random weights: reproducible by name and seed, pruned in a pattern, quantised as ONNX Runtime's tool does.
#pragma once

#include <cstdint>
#include <string>

#include "sprun/tensor.h"
#include "tools/modelgen/config.h"

namespace sprun::modelgen {

// float32 values of mean `mean` and standard deviation `deviation`, near normal (a sum of four uniform numbers). They
// depend on seed and name only, not on what was made before.
Result<Tensor> random_tensor(uint64_t seed, const std::string& name, const Shape& shape, float mean, float deviation);

// Zeroes the blocks with the smallest norms of weight [K, N] until `sparsity` of the blocks are zero, and scales the
// rest so that the sum of squares stays about the same. Blocks are outputs (N) x inputs (K).
void prune(Tensor* weight, const Pattern& pattern, double sparsity);

struct QuantizedWeight {
  Tensor values;             // uint8 or int8, the shape of the weight
  Tensor scale, zero_point;  // scalars, or [N] per channel
};
// w ~ (values - zero_point) * scale. int8 is symmetric over [-127, 127], uint8 asymmetric over [0, 255]; the range
// always holds zero. Weight [K, N]; channels are columns.
Result<QuantizedWeight> quantize_weight(const Tensor& weight, Quantization type, bool per_channel);


// As com.microsoft MatMulNBits stores it, bits 4 or 8: w ~ (code - 2^(bits-1)) * scale, one scale for `block` inputs of
// an output. values uint8 [N, ceil(K / block), block * bits / 8], two 4-bit codes in a byte, the first one low; scale
// [N * ceil(K / block)]. No zero point. Weight [K, N].
Result<QuantizedWeight> quantize_blocks(const Tensor& weight, int bits, int64_t block);

}  // namespace sprun::modelgen
