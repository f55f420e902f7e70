#include "kernels/bsr_spmm/cost.h"

#include <algorithm>

namespace sprun::kernels {
namespace {

constexpr double kBytesPerNs = 30.0;

// Multiply-adds per nanosecond of the dense kernel.
double dense_rate(Isa isa) {
  switch (isa) {
    case Isa::kAmxInt8:
    case Isa::kAmxBf16:
      return 2000.0;
    case Isa::kAvx512Vnni:
    case Isa::kAvx512Bf16:
      return 460.0;
    case Isa::kAvxVnni:
      return 250.0;
    case Isa::kAvx512:
    case Isa::kAvx512Vbmi2:
    case Isa::kAvx512Vbmi2Bf16:
      return 150.0;
    case Isa::kAvx2:
      return 75.0;
    case Isa::kScalar:
      return 38.0;
  }
  return 38.0;
}

// Part of the dense rate that the sparse kernel of a pattern reaches while a run lasts.
double efficiency(const BsrLayout& layout, bool wide_dot) {
  if (layout.x_layout == XLayout::kRowMajor) return 0.7;
  if (layout.block == kBlock1x4) return wide_dot ? 0.5 : 0.7;
  if (layout.block == kBlock4x1) return wide_dot ? 0.8 : 0.7;
  if (layout.block == kBlock4x4) return 0.9;
  return 0.95;
}

double size_of(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }

}  // namespace

double dense_u8s8_cost(const ProductSize& size, IsaSet isas) {
  const Isa isa = select(gemm_u8s8_kernels(), isas).isa;
  const double weights = size_of(size.n, size.k);
  return std::max(static_cast<double>(size.m) * weights / dense_rate(isa), weights / kBytesPerNs);
}

double bsr_u8s8_cost(const KernelInfo<BsrU8S8Kernel>& info, const ProductSize& size, double density) {
  // Elements per nanosecond that are copied into slabs, or turned and written.
  constexpr double kSlabElements = 30.0, kOutputElements = 25.0;
  constexpr int64_t kLanes = 16;
  const BsrLayout& layout = info.kernel->layout;
  const bool rows = layout.x_layout == XLayout::kRowMajor;
  const int64_t padded_m = rows ? size.m : (size.m + kLanes - 1) / kLanes * kLanes;
  const double stored = density * size_of(size.n, size.k);
  const double rate = dense_rate(info.isa) * efficiency(layout, info.isa == Isa::kAvx512Vnni);
  const double bytes = stored * (1.0 + 2.0 / static_cast<double>(layout.block.size()));
  const double product =
      std::max(static_cast<double>(padded_m) * stored / rate, bytes / kBytesPerNs);
  const double slabs = rows ? 0.0 : size_of(padded_m, size.k) / kSlabElements;
  const double turned = rows ? 0.0 : size_of(padded_m, size.n) / kOutputElements;
  return product + slabs + turned;
}

}  // namespace sprun::kernels
