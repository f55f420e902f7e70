#include "kernels/gemm/quantize_rows_impl.h"

namespace sprun::kernels {

extern constinit const QuantizeRowsKernel quantize_rows_avx512 = gemm::kQuantizeRows<simd::Avx512>;

}  // namespace sprun::kernels
