// What a product is expected to cost, so that a layer can be chosen sparse or dense before it runs.
//
//   dense:  max(multiply-adds / rate, weight bytes / bandwidth)
//   sparse: max(stored multiply-adds / (rate * efficiency), packed bytes / bandwidth)
//           + copying X into slabs + turning Y around
// The unit is about a nanosecond of one core, but only ratios between the two are meant: both sides
// use the same rate per instruction set. Constants: `sprun_kernels_bench --benchmark_filter=^u8s8`
// and ^f32, ^bf16 on AMD Zen 5 (bench/README.md says how to repeat it), 128 rows, 768 and 3072 inputs
// and outputs.
#pragma once

#include <cstdint>

#include "kernels/bsr_spmm/bsr_spmm.h"

namespace sprun::kernels {

struct ProductSize {
  int64_t m = 0, n = 0, k = 0;
};

enum class ProductType : uint8_t { kU8S8, kF32, kBf16 };

// The dense product of kernels/gemm with the best kernel for `isas`. bytes: of one weight in memory; 0: as the type
// has it.
double dense_cost(ProductType type, const ProductSize& size, IsaSet isas, int64_t bytes = 0);

// The product with stored blocks only, by a kernel of this layout on `isa`; `density` is that of the
// kernel's pattern.
double bsr_cost(ProductType type, Isa isa, const BsrLayout& layout, const ProductSize& size,
                double density);

}  // namespace sprun::kernels
