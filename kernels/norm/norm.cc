#include "kernels/norm/norm.h"

namespace sprun::kernels {

#define SPRUN_ROW_NORM(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const RowNormKernel symbol;)
#include "kernels/norm/norm.def"

namespace {

constinit const KernelInfo<RowNormKernel> kKernels[] = {
#define SPRUN_ROW_NORM SPRUN_KERNEL_ENTRY
#include "kernels/norm/norm.def"
};

}  // namespace

std::span<const KernelInfo<RowNormKernel>> row_norm_kernels() { return kKernels; }

}  // namespace sprun::kernels
