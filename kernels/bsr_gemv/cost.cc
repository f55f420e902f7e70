#include "kernels/bsr_gemv/cost.h"

#include <algorithm>

namespace sprun::kernels {
namespace {

// Cycles that 64 weights take to expand and multiply with one row.
double expand_cycles(Isa isa, GemvFormat format) {
  struct Cycles {
    double bitmap, block, one_of_four, two_of_four;
  };
  const auto cycles = [isa]() -> Cycles {
    switch (isa) {
      case Isa::kAvx512Vbmi2:
      case Isa::kAvx512Vbmi2Bf16:
        return {2.5, 2.3, 2.2, 4.4};
      case Isa::kAvx512Vnni:
        return {9.2, 2.3, 2.2, 4.4};
      case Isa::kAvx512:
        return {11.0, 3.7, 4.0, 6.1};
      case Isa::kAvxVnni:
        return {10.0, 4.1, 4.5, 8.8};
      case Isa::kAvx2:
        return {12.0, 6.2, 8.4, 13.0};
      default:
        return {100.0, 100.0, 100.0, 100.0};
    }
  }();
  switch (format) {
    case GemvFormat::kBitmap:
      return cycles.bitmap;
    case GemvFormat::kQuads:
      return cycles.block;
    case GemvFormat::kOneOfFour:
      return cycles.one_of_four;
    case GemvFormat::kTwoOfFour:
      return cycles.two_of_four;
  }
  return cycles.bitmap;
}

}  // namespace

double gemv_u8s8_cost(Isa isa, GemvFormat format, int64_t m, int64_t n, int64_t k, double stored) {
  constexpr double kCyclesPerNs = 3.85, kBytesPerNs = 30.0, kCyclesPerRow = 0.6;
  constexpr int64_t kRowsPerExpansion = 6;
  const bool wide = isa == Isa::kAvx512Vbmi2 || isa == Isa::kAvx512Vnni || isa == Isa::kAvx512;
  const double expansions = static_cast<double>((m + kRowsPerExpansion - 1) / kRowsPerExpansion);
  const double rows = static_cast<double>(m - 1) * kCyclesPerRow * (wide ? 1.0 : 2.0);
  const double chunks = static_cast<double>(n) * static_cast<double>(k) / 64.0;
  const double bytes = chunks * (static_cast<double>(gemv_index_bytes(format)) + 64.0 * stored);
  return std::max(chunks * (expansions * expand_cycles(isa, format) + rows) / kCyclesPerNs,
                  bytes / kBytesPerNs);
}

}  // namespace sprun::kernels
