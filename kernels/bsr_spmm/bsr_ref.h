// What the references share: the stored values of one output, in packed order.
#pragma once

#include "kernels/bsr_spmm/bsr_layouts.h"

namespace sprun::kernels {

// Calls fn(at, k) for each stored value of output n: element `at` of the values, input k. Blocks
// that only fill a group repeat a column and are passed over. Not for layouts with tiles.
template <class Fn>
void for_each_stored(const BsrLayout& layout, const BsrWeights& w, int64_t n, const Fn& fn) {
  const int64_t rows = layout.block.rows, cols = layout.block.cols, blocks = layout.group_blocks;
  const BsrUnit* unit = w.units + n / layout.unit_rows;
  int64_t group = unit[0].first_group;
  for (int32_t i = unit[0].first_run; i < unit[1].first_run; group += w.runs[i].groups, ++i) {
    const int64_t r = n % layout.unit_rows - w.runs[i].row;
    if (r < 0 || r >= rows) continue;
    for (int64_t b = group * blocks; b < (group + w.runs[i].groups) * blocks; ++b) {
      if (b % blocks > 0 && w.cols[b] == w.cols[b - 1]) continue;
      const int64_t at = (b / blocks * rows + r) * blocks * cols + b % blocks * cols;
      for (int64_t c = 0; c < cols; ++c) fn(at + c, w.cols[b] * cols + c);
    }
  }
}

// Calls fn(m, n) for each element of Y that belongs to the range.
template <class Fn>
void for_each_output(const BsrLayout& layout, const BsrRange& range, int64_t rows, int64_t outputs,
                     const Fn& fn) {
  const int64_t m_end = range.slab_end * layout.slab_tokens;
  const int64_t n_end = range.unit_end * layout.unit_rows;
  for (int64_t m = range.slab_begin * layout.slab_tokens; m < m_end && m < rows; ++m) {
    for (int64_t n = range.unit_begin * layout.unit_rows; n < n_end && n < outputs; ++n) fn(m, n);
  }
}

}  // namespace sprun::kernels
