// Rounding of values to codes and back, as statically quantised graphs do between layers.
#pragma once

#include "kernels/gemm/gemm_types.h"
#include "kernels/sparse_ffn/sparse_ffn_types.h"

namespace sprun::kernels {

// The stages of `requant` on v[0, n): values of neurons first, first + 1, .., or, with ids, of neurons ids[i].
// Equal to QuantizeLinear, DequantizeLinear and Add of ONNX bit for bit.   Threads: none.   Errors: none.
void requantize(const QuantizeRowsKernel& quantize, const FfnRequant& requant, int64_t first, const int32_t* ids,
                float* v, int64_t n);

}  // namespace sprun::kernels
