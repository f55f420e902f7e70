#include "kernels/nbits/nbits.h"

namespace sprun::kernels {

#define SPRUN_NBITS(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const NbitsKernel symbol;)
#include "kernels/nbits/nbits.def"

namespace {
constinit const KernelInfo<NbitsKernel> kKernels[] = {
#define SPRUN_NBITS SPRUN_KERNEL_ENTRY
#include "kernels/nbits/nbits.def"
};
}  // namespace

std::span<const KernelInfo<NbitsKernel>> nbits_kernels() { return kKernels; }

}  // namespace sprun::kernels
