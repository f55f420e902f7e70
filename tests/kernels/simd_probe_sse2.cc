#include "tests/kernels/simd_probe_impl.h"

namespace sprun::kernels::simd_probe {

extern constinit const Probe kProbeSse2 = kProbe<simd::Sse2>;

}  // namespace sprun::kernels::simd_probe
