#include "kernels/nbits/nbits_impl.h"

namespace sprun::kernels {

extern constinit const NbitsKernel nbits_avx2 = nbits::kNbits<simd::Avx2>;

}  // namespace sprun::kernels
