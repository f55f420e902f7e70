#include "kernels/bsr_spmm/cost.h"

#include <algorithm>

namespace sprun::kernels {
namespace {

constexpr double kBytesPerNs = 30.0;

// Multiply-adds per nanosecond of the dense kernel.
double dense_rate(ProductType type, Isa isa) {
  struct Rates {
    double u8s8, f32, bf16;
  };
  const auto rates = [isa]() -> Rates {
    switch (isa) {
      case Isa::kAmxInt8:
      case Isa::kAmxBf16:
        return {2000.0, 120.0, 1000.0};
      case Isa::kAvx512Vnni:
      case Isa::kAvx512Bf16:
      case Isa::kAvx512Vbmi2:
      case Isa::kAvx512Vbmi2Bf16:
        return {460.0, 120.0, 220.0};
      case Isa::kAvxVnni:
        return {250.0, 60.0, 40.0};
      case Isa::kAvx512:
        return {150.0, 120.0, 70.0};
      case Isa::kAvx2:
        return {75.0, 60.0, 40.0};
      case Isa::kScalar:
        return {38.0, 15.0, 10.0};
    }
    return {38.0, 15.0, 10.0};
  }();
  return type == ProductType::kU8S8 ? rates.u8s8 : type == ProductType::kF32 ? rates.f32 : rates.bf16;
}

int64_t weight_bytes(ProductType type) {
  return type == ProductType::kU8S8 ? 1 : type == ProductType::kF32 ? 4 : 2;
}

// Part of the dense rate that the sparse kernel of a pattern reaches while a run lasts.
double efficiency(ProductType type, const BsrLayout& layout, Isa isa) {
  const bool wide_dot = isa == Isa::kAvx512Vnni;
  if (layout.block == kBlock1x1) return 0.35;
  if (type != ProductType::kU8S8) return layout.block == kBlock4x1 ? 0.8 : 0.85;
  if (layout.x_layout == XLayout::kRowMajor) return 0.7;
  if (isa == Isa::kAvx2 || isa == Isa::kAvx512) {
    // Without VNNI weights are widened once for all tokens of a slab, which dense kernels do not do.
    // Weights whose pairs fit 16 bits take 0.7 of the time that is expected here.
    return layout.block.cols == 4 && layout.block.rows > 1 ? 1.1 : 0.85;
  }
  if (layout.block == kBlock1x4) return wide_dot ? 0.5 : 0.7;
  if (layout.block == kBlock4x1) return wide_dot ? 0.8 : 0.7;
  if (layout.block == kBlock4x4) return 0.9;
  return 0.95;
}

double size_of(int64_t a, int64_t b) { return static_cast<double>(a) * static_cast<double>(b); }

Isa dense_isa(ProductType type, IsaSet isas) {
  switch (type) {
    case ProductType::kU8S8:
      return select(gemm_u8s8_kernels(), isas).isa;
    case ProductType::kF32:
      return select(gemm_f32_kernels(), isas).isa;
    case ProductType::kBf16:
      return select(gemm_bf16_kernels(), isas).isa;
  }
  return Isa::kScalar;
}

}  // namespace

double dense_cost(ProductType type, const ProductSize& size, IsaSet isas, int64_t bytes) {
  const double weights = size_of(size.n, size.k);
  return std::max(static_cast<double>(size.m) * weights / dense_rate(type, dense_isa(type, isas)),
                  weights * static_cast<double>(bytes > 0 ? bytes : weight_bytes(type)) / kBytesPerNs);
}

double bsr_cost(ProductType type, Isa isa, const BsrLayout& layout, const ProductSize& size,
                double density) {
  // Bytes per nanosecond that are copied into slabs; elements that are turned and written.
  constexpr double kSlabBytes = 30.0, kOutputElements = 25.0;
  constexpr int64_t kLanes = 16;
  const bool rows = layout.x_layout == XLayout::kRowMajor;
  const int64_t padded_m = rows ? size.m : (size.m + kLanes - 1) / kLanes * kLanes;
  const double stored = density * size_of(size.n, size.k);
  const double rate = dense_rate(type, isa) * efficiency(type, layout, isa);
  const double value_bytes = static_cast<double>(weight_bytes(type));
  const double bytes = stored * (value_bytes + 2.0 / static_cast<double>(layout.block.size()));
  const double product =
      std::max(static_cast<double>(padded_m) * stored / rate, bytes / kBytesPerNs);
  const double slabs = rows ? 0.0 : size_of(padded_m, size.k) * value_bytes / kSlabBytes;
  const double turned = rows ? 0.0 : size_of(padded_m, size.n) / kOutputElements;
  return product + slabs + turned;
}

}  // namespace sprun::kernels
