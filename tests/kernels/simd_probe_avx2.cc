#include "tests/kernels/simd_probe_impl.h"

namespace sprun::kernels::simd_probe {

extern constinit const Probe kProbeAvx2 = kProbe<simd::Avx2>;

}  // namespace sprun::kernels::simd_probe
