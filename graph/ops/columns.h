// Values between two linear layers whose rows of X are the lanes of their kernels ("columns"): nothing is turned around.
//
// A value [.., K] with M rows lies as [ceil(M / 64), K, 64]: floats with row 64 s + t at t, codes in the order of
// kernels::XLayout::kColumnSlabs. Rows past M hold anything.
#pragma once

#include "sprun/tensor.h"

namespace sprun::graph {

struct Columns {
  static constexpr int64_t kRows = 64;

  static Shape shape(int64_t m, int64_t k) { return Shape{(m + kRows - 1) / kRows, k, kRows}; }

  // Element (row, k) of a value with `width` columns.
  static int64_t float_at(int64_t row, int64_t k, int64_t width) {
    return (row / kRows * width + k) * kRows + row % kRows;
  }
  static int64_t code_at(int64_t row, int64_t k, int64_t width) {
    const int64_t t = row % kRows;
    return (row / kRows * width + k) * kRows + t % 16 / 4 * 16 + t / 16 * 4 + t % 4;
  }
};

}  // namespace sprun::graph
