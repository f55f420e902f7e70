// Walking a reduction: the axes of the input, merged and split into kept and reduced ones, and two
// loops over them that work for any element type and any way of accumulating.
//
// A Reducer has
//   using In = T; using Acc = ...; using Out = ...;
//   static Acc init();  static void step(Acc& acc, In x);  static Out finish(Acc acc, int64_t
//   count);
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "sprun/shape.h"

namespace sprun::graph {

using AxisMask = std::array<bool, kMaxRank>;

// Axes of one kind, outermost first; strides in elements of the input.
struct AxisList {
  int rank = 0;
  std::array<int64_t, kMaxRank> dims{}, strides{};

  // Number of positions.
  int64_t count() const;
  // Offset of position `i` in row-major order.
  int64_t offset(int64_t i) const;
};

struct ReduceLoop {
  AxisList kept, reduced;
  bool inner_reduced = true;  // the innermost axis with more than one element is a reduced one
};

// Precondition: no size is zero.
ReduceLoop make_reduce_loop(const Shape& shape, const AxisMask& reduced);

// Steps through the positions of the first `rank` axes of a list in order, keeping the offset.
class AxisWalk {
 public:
  AxisWalk(const AxisList& list, int rank) : list_(list), rank_(static_cast<size_t>(rank)) {}
  int64_t offset() const { return offset_; }
  // False after the last position.
  bool next();

 private:
  const AxisList& list_;
  size_t rank_;
  std::array<int64_t, kMaxRank> index_{};
  int64_t offset_ = 0;
};

// Outputs [begin, end) where the innermost axis is reduced: one output at a time over contiguous
// runs.
template <class Reducer>
void reduce_rows(const ReduceLoop& loop, const typename Reducer::In* x, typename Reducer::Out* y,
                 int64_t begin, int64_t end) {
  const int64_t count = loop.reduced.count();
  const int outer = loop.reduced.rank - 1;
  const int64_t run = outer >= 0 ? loop.reduced.dims[static_cast<size_t>(outer)] : 1;
  for (int64_t o = begin; o < end; ++o) {
    const auto* base = x + loop.kept.offset(o);
    auto acc = Reducer::init();
    AxisWalk walk(loop.reduced, std::max(outer, 0));
    do {
      const auto* p = base + walk.offset();
      for (int64_t i = 0; i < run; ++i) Reducer::step(acc, p[i]);
    } while (walk.next());
    y[o] = Reducer::finish(acc, count);
  }
}

// Outputs [begin, end) where the innermost axis is kept: blocks of neighbouring outputs advance
// together.
template <class Reducer>
void reduce_columns(const ReduceLoop& loop, const typename Reducer::In* x, typename Reducer::Out* y,
                    int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 128;
  const int64_t count = loop.reduced.count();
  const int64_t inner = loop.kept.dims[static_cast<size_t>(loop.kept.rank - 1)];
  typename Reducer::Acc acc[kBlock];
  for (int64_t o = begin; o < end;) {
    const int64_t n = std::min({kBlock, end - o, inner - o % inner});
    const auto* base = x + loop.kept.offset(o);
    std::fill_n(acc, n, Reducer::init());
    AxisWalk walk(loop.reduced, loop.reduced.rank);
    do {
      const auto* p = base + walk.offset();
      for (int64_t i = 0; i < n; ++i) Reducer::step(acc[i], p[i]);
    } while (walk.next());
    for (int64_t i = 0; i < n; ++i) y[o + i] = Reducer::finish(acc[i], count);
    o += n;
  }
}

}  // namespace sprun::graph
