#include "kernels/gemm/quantize_rows_impl.h"

namespace sprun::kernels {

extern constinit const QuantizeRowsKernel quantize_rows_sse2 = gemm::kQuantizeRows<simd::Sse2>;

}  // namespace sprun::kernels
