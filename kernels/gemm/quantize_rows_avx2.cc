#include "kernels/gemm/quantize_rows_impl.h"

namespace sprun::kernels {

extern constinit const QuantizeRowsKernel quantize_rows_avx2 = gemm::kQuantizeRows<simd::Avx2>;

}  // namespace sprun::kernels
