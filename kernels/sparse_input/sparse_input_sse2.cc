#include "kernels/sparse_input/sparse_input_impl.h"

namespace sprun::kernels {

using sparse_input::kSparseInput;
extern constinit const SparseInputKernel sparse_input_f32_sse2 = kSparseInput<simd::Sse2, sparse_input::F32Rows>;
extern constinit const SparseInputKernel sparse_input_f16_sse2 = kSparseInput<simd::Sse2, sparse_input::F16Rows>;
extern constinit const SparseInputKernel sparse_input_bf16_sse2 = kSparseInput<simd::Sse2, sparse_input::Bf16Rows>;
extern constinit const SparseInputKernel sparse_input_s8_sse2 = kSparseInput<simd::Sse2, sparse_input::S8Rows>;

}  // namespace sprun::kernels
