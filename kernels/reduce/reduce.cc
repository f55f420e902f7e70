#include "kernels/reduce/reduce.h"

namespace sprun::kernels {

#define SPRUN_REDUCE(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const ReduceKernel symbol;)
#include "kernels/reduce/reduce.def"

namespace {
constinit const KernelInfo<ReduceKernel> kVariants[] = {
#define SPRUN_REDUCE SPRUN_KERNEL_ENTRY
#include "kernels/reduce/reduce.def"
};
}  // namespace

std::span<const KernelInfo<ReduceKernel>> reduce_kernels() { return kVariants; }

const KernelInfo<ReduceKernel>& best_reduce() {
  static const KernelInfo<ReduceKernel>& best = select(reduce_kernels(), available_isas());
  return best;
}

}  // namespace sprun::kernels
