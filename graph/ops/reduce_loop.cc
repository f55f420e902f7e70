#include "graph/ops/reduce_loop.h"

namespace sprun::graph {

int64_t AxisList::count() const {
  int64_t product = 1;
  for (size_t axis = 0; axis < static_cast<size_t>(rank); ++axis) product *= dims[axis];
  return product;
}

int64_t AxisList::offset(int64_t i) const {
  int64_t sum = 0;
  for (auto axis = static_cast<size_t>(rank); axis-- > 0;) {
    sum += i % dims[axis] * strides[axis];
    i /= dims[axis];
  }
  return sum;
}

bool AxisWalk::next() {
  for (size_t axis = rank_; axis-- > 0;) {
    if (++index_[axis] < list_.dims[axis]) {
      offset_ += list_.strides[axis];
      return true;
    }
    offset_ -= (list_.dims[axis] - 1) * list_.strides[axis];
    index_[axis] = 0;
  }
  return false;
}

ReduceLoop make_reduce_loop(const Shape& shape, const AxisMask& reduced) {
  ReduceLoop loop;
  int64_t stride = shape.num_elements();
  int previous = -1;  // 1: the last axis seen is reduced, 0: kept
  for (int axis = 0; axis < shape.rank(); ++axis) {
    stride /= shape[axis];
    if (shape[axis] == 1) continue;
    const bool is_reduced = reduced[static_cast<size_t>(axis)];
    AxisList& list = is_reduced ? loop.reduced : loop.kept;
    if (previous == static_cast<int>(is_reduced)) {  // same kind as its outer neighbour: one axis
      const auto last = static_cast<size_t>(list.rank - 1);
      list.dims[last] *= shape[axis];
      list.strides[last] = stride;
    } else {
      const auto slot = static_cast<size_t>(list.rank++);
      list.dims[slot] = shape[axis];
      list.strides[slot] = stride;
    }
    previous = static_cast<int>(is_reduced);
  }
  loop.inner_reduced = previous != 0;
  return loop;
}

}  // namespace sprun::graph
