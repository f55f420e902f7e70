#include "kernels/bsr_spmm/bsr_spmm.h"

#include <algorithm>

namespace sprun::kernels {

#define SPRUN_BSR_U8S8(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const BsrU8S8Kernel symbol;)
#define SPRUN_BSR_U8S8_TEST SPRUN_BSR_U8S8
#define SPRUN_BSR_F32(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const BsrF32Kernel symbol;)
#define SPRUN_BSR_BF16(isa, symbol, numeric) SPRUN_IF_BUILT_##isa(extern const BsrBf16Kernel symbol;)
#define SPRUN_BSR_BF16_TEST SPRUN_BSR_BF16
#include "kernels/bsr_spmm/bsr_spmm.def"

namespace {

constinit const KernelInfo<BsrU8S8Kernel> kU8S8[] = {
#define SPRUN_BSR_U8S8 SPRUN_KERNEL_ENTRY
#include "kernels/bsr_spmm/bsr_spmm.def"
};

constinit const KernelInfo<BsrU8S8Kernel> kU8S8Test[] = {
#define SPRUN_BSR_U8S8_TEST SPRUN_KERNEL_ENTRY
#include "kernels/bsr_spmm/bsr_spmm.def"
};

constinit const KernelInfo<BsrF32Kernel> kF32[] = {
#define SPRUN_BSR_F32 SPRUN_KERNEL_ENTRY
#include "kernels/bsr_spmm/bsr_spmm.def"
};

constinit const KernelInfo<BsrBf16Kernel> kBf16[] = {
#define SPRUN_BSR_BF16 SPRUN_KERNEL_ENTRY
#include "kernels/bsr_spmm/bsr_spmm.def"
};

constinit const KernelInfo<BsrBf16Kernel> kBf16Test[] = {
#define SPRUN_BSR_BF16_TEST SPRUN_KERNEL_ENTRY
#include "kernels/bsr_spmm/bsr_spmm.def"
};

}  // namespace

std::span<const KernelInfo<BsrU8S8Kernel>> bsr_u8s8_kernels() { return kU8S8; }
std::span<const KernelInfo<BsrU8S8Kernel>> bsr_u8s8_test_kernels() { return kU8S8Test; }
std::span<const KernelInfo<BsrF32Kernel>> bsr_f32_kernels() { return kF32; }
std::span<const KernelInfo<BsrBf16Kernel>> bsr_bf16_kernels() { return kBf16; }
std::span<const KernelInfo<BsrBf16Kernel>> bsr_bf16_test_kernels() { return kBf16Test; }

BsrParts bsr_parts(const BsrWeights& w, int64_t slabs, int workers) {
  // Parts per worker: enough that a late worker costs little, few enough that a part is worth a task.
  constexpr int64_t kPartsPerWorker = 4;
  const int64_t wanted = workers == 1 ? 1 : kPartsPerWorker * workers;
  BsrParts parts;
  parts.slabs = slabs;
  const int64_t unit_parts = std::max<int64_t>(1, std::min(wanted, w.num_units));
  parts.slab_parts = std::max<int64_t>(1, std::min(wanted / unit_parts, slabs));
  // A unit without groups still has an output to write: it counts like one group.
  const int64_t total = w.units[w.num_units].first_group + w.num_units;
  parts.unit_begin = {0};
  for (int64_t u = 0; u < w.num_units; ++u) {
    const int64_t done = w.units[u + 1].first_group + u + 1;
    const auto next = static_cast<int64_t>(parts.unit_begin.size());
    if (done * unit_parts >= total * next && next < unit_parts) parts.unit_begin.push_back(u + 1);
  }
  if (parts.unit_begin.back() != w.num_units) parts.unit_begin.push_back(w.num_units);
  return parts;
}

}  // namespace sprun::kernels
