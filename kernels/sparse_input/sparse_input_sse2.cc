#include "kernels/sparse_input/sparse_input_impl.h"

namespace sprun::kernels {

using sparse_input::kSparseInput;
extern constinit const SparseInputKernel sparse_input_f32_sse2 = kSparseInput<simd::Sse2, simd::StoredF32>;
extern constinit const SparseInputKernel sparse_input_f16_sse2 = kSparseInput<simd::Sse2, simd::StoredF16>;
extern constinit const SparseInputKernel sparse_input_bf16_sse2 = kSparseInput<simd::Sse2, simd::StoredBf16>;
extern constinit const SparseInputKernel sparse_input_s8_sse2 = kSparseInput<simd::Sse2, simd::StoredS8>;
extern constinit const SparseInputKernel sparse_input_s4_sse2 = kSparseInput<simd::Sse2, sparse_input::StoredS4>;

}  // namespace sprun::kernels
