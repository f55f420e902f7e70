#include "kernels/gemm/gemm.h"

#include <algorithm>

namespace sprun::kernels {

#define SPRUN_GEMM_F32(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const GemmF32Kernel symbol;)
#define SPRUN_GEMM_F32S8(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const GemmNarrowKernel symbol;)
#define SPRUN_GEMM_F32F16 SPRUN_GEMM_F32S8
#define SPRUN_GEMM_F32BF16 SPRUN_GEMM_F32S8
#define SPRUN_GEMM_BF16(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const GemmBf16Kernel symbol;)
#define SPRUN_GEMM_U8S8(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const GemmU8S8Kernel symbol;)
#define SPRUN_QUANTIZE_ROWS(isa, symbol, numeric) \
  SPRUN_IF_BUILT_##isa(extern const QuantizeRowsKernel symbol;)
#include "kernels/gemm/gemm.def"

namespace {

constinit const KernelInfo<GemmF32Kernel> kF32[] = {
#define SPRUN_GEMM_F32 SPRUN_KERNEL_ENTRY
#include "kernels/gemm/gemm.def"
};
constinit const KernelInfo<GemmNarrowKernel> kF32S8[] = {
#define SPRUN_GEMM_F32S8 SPRUN_KERNEL_ENTRY
#include "kernels/gemm/gemm.def"
};
constinit const KernelInfo<GemmNarrowKernel> kF32F16[] = {
#define SPRUN_GEMM_F32F16 SPRUN_KERNEL_ENTRY
#include "kernels/gemm/gemm.def"
};
constinit const KernelInfo<GemmNarrowKernel> kF32Bf16[] = {
#define SPRUN_GEMM_F32BF16 SPRUN_KERNEL_ENTRY
#include "kernels/gemm/gemm.def"
};
constinit const KernelInfo<GemmBf16Kernel> kBf16[] = {
#define SPRUN_GEMM_BF16 SPRUN_KERNEL_ENTRY
#include "kernels/gemm/gemm.def"
};
constinit const KernelInfo<GemmU8S8Kernel> kU8S8[] = {
#define SPRUN_GEMM_U8S8 SPRUN_KERNEL_ENTRY
#include "kernels/gemm/gemm.def"
};
constinit const KernelInfo<QuantizeRowsKernel> kQuantize[] = {
#define SPRUN_QUANTIZE_ROWS SPRUN_KERNEL_ENTRY
#include "kernels/gemm/gemm.def"
};

}  // namespace

std::span<const KernelInfo<GemmF32Kernel>> gemm_f32_kernels() { return kF32; }
std::span<const KernelInfo<GemmNarrowKernel>> gemm_f32s8_kernels() { return kF32S8; }
std::span<const KernelInfo<GemmNarrowKernel>> gemm_f32f16_kernels() { return kF32F16; }
std::span<const KernelInfo<GemmNarrowKernel>> gemm_f32bf16_kernels() { return kF32Bf16; }
std::span<const KernelInfo<GemmBf16Kernel>> gemm_bf16_kernels() { return kBf16; }
std::span<const KernelInfo<GemmU8S8Kernel>> gemm_u8s8_kernels() { return kU8S8; }
std::span<const KernelInfo<QuantizeRowsKernel>> quantize_rows_kernels() { return kQuantize; }

TileGrid make_grid(int64_t m, int64_t n, int64_t k, int64_t nr, int bytes_per_weight,
                   int workers) {
  // Rates of one AVX-512 core, used only to see when a task would be too small to pay for itself.
  constexpr double kOpsPerNs = 200.0;
  constexpr double kBytesPerNs = 40.0;
  constexpr double kTaskNs = 4000.0;
  constexpr int64_t kUnitsPerWorker = 4;
  constexpr int64_t kMinRows = 24;  // two register tiles
  TileGrid g{m, num_panels(n, nr), 1, 1};
  if (g.panels == 0 || m == 0) return {m, 0, 1, 1};
  const int64_t wanted = kUnitsPerWorker * workers;
  if (workers > 1 && g.panels < wanted) {
    g.row_parts = std::max<int64_t>(1, std::min((wanted + g.panels - 1) / g.panels, m / kMinRows));
  }
  const double weights = static_cast<double>(nr) * static_cast<double>(k);
  const double rows = static_cast<double>(m) / static_cast<double>(g.row_parts);
  const double ns = std::max(rows * weights * 2.0 / (kOpsPerNs * 4.0 / bytes_per_weight),
                             weights * bytes_per_weight / kBytesPerNs);
  const double smallest = std::min(kTaskNs / std::max(ns, 1.0) + 1.0, 1e9);
  g.grain = std::max(g.units() / wanted, static_cast<int64_t>(smallest));
  if (workers == 1) g.grain = g.units();
  return g;
}

}  // namespace sprun::kernels
