#include "tests/kernels/simd_probe_impl.h"

namespace sprun::kernels::simd_probe {

extern constinit const Probe kProbeAvx512 = kProbe<simd::Avx512>;

}  // namespace sprun::kernels::simd_probe
