#include "kernels/peak/peak.h"

#include "kernels/registry.h"

namespace sprun::kernels {

#define SPRUN_KERNEL(isa, kind, function) SPRUN_IF_BUILT_##isa(PeakFn function;)
#include "kernels/peak/peak.def"
#undef SPRUN_KERNEL

namespace {
constexpr PeakKernel kKernels[] = {
#define SPRUN_KERNEL(isa, kind, function) \
  SPRUN_IF_BUILT_##isa({#function, Isa::isa, PeakKind::kind, &function}, )
#include "kernels/peak/peak.def"
#undef SPRUN_KERNEL
};
}  // namespace

std::span<const PeakKernel> peak_kernels() { return kKernels; }

const PeakKernel* find_peak_kernel(PeakKind kind, IsaSet allowed) {
  for (const PeakKernel& kernel : kKernels) {
    if (kernel.kind == kind && allowed.contains(kernel.isa)) return &kernel;
  }
  return nullptr;
}

}  // namespace sprun::kernels
