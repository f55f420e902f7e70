#include "kernels/sparse_input/sparse_input_impl.h"

namespace sprun::kernels {

using sparse_input::kSparseInput;
extern constinit const SparseInputKernel sparse_input_f32_avx512 = kSparseInput<simd::Avx512, simd::StoredF32>;
extern constinit const SparseInputKernel sparse_input_f16_avx512 = kSparseInput<simd::Avx512, simd::StoredF16>;
extern constinit const SparseInputKernel sparse_input_bf16_avx512 = kSparseInput<simd::Avx512, simd::StoredBf16>;
extern constinit const SparseInputKernel sparse_input_s8_avx512 = kSparseInput<simd::Avx512, simd::StoredS8>;
extern constinit const SparseInputKernel sparse_input_s4_avx512 = kSparseInput<simd::Avx512, sparse_input::StoredS4>;

}  // namespace sprun::kernels
