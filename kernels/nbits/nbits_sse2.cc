#include "kernels/nbits/nbits_impl.h"

namespace sprun::kernels {

extern constinit const NbitsKernel nbits_sse2 = nbits::kNbits<simd::Sse2>;

}  // namespace sprun::kernels
