#include "kernels/softmax/softmax.h"

namespace sprun::kernels {

#define SPRUN_SOFTMAX(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const SoftmaxKernel symbol;)
#include "kernels/softmax/softmax.def"

namespace {
constinit const KernelInfo<SoftmaxKernel> kVariants[] = {
#define SPRUN_SOFTMAX SPRUN_KERNEL_ENTRY
#include "kernels/softmax/softmax.def"
};
}  // namespace

std::span<const KernelInfo<SoftmaxKernel>> softmax_kernels() { return kVariants; }

const KernelInfo<SoftmaxKernel>& best_softmax() {
  static const KernelInfo<SoftmaxKernel>& best = select(softmax_kernels(), available_isas());
  return best;
}

}  // namespace sprun::kernels
