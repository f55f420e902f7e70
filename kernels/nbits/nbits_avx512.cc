#include "kernels/nbits/nbits_impl.h"

namespace sprun::kernels {

extern constinit const NbitsKernel nbits_avx512 = nbits::kNbits<simd::Avx512>;

}  // namespace sprun::kernels
