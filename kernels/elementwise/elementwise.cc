#include "kernels/elementwise/elementwise.h"

namespace sprun::kernels {

#define SPRUN_ELEMENTWISE(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const ElementwiseKernel symbol;)
#include "kernels/elementwise/elementwise.def"

namespace {
constinit const KernelInfo<ElementwiseKernel> kVariants[] = {
#define SPRUN_ELEMENTWISE SPRUN_KERNEL_ENTRY
#include "kernels/elementwise/elementwise.def"
};
}  // namespace

std::span<const KernelInfo<ElementwiseKernel>> elementwise_kernels() { return kVariants; }

const KernelInfo<ElementwiseKernel>& best_elementwise() {
  static const KernelInfo<ElementwiseKernel>& best =
      select(elementwise_kernels(), available_isas());
  return best;
}

}  // namespace sprun::kernels
