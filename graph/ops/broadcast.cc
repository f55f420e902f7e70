#include "graph/ops/broadcast.h"

#include "graph/ops/op_util.h"

namespace sprun::graph {
namespace {

size_t at(int i) { return static_cast<size_t>(i); }

// True if, for every input, one step of axis `outer` is the whole of the next axis of size
// `inner_dim`, so that the two are one axis.
bool can_merge(const BroadcastLoop& loop, int outer,
               const std::array<int64_t, kMaxBroadcastInputs>& inner_strides, int64_t inner_dim) {
  for (int k = 0; k < loop.num_inputs; ++k) {
    if (loop.strides[at(k)][at(outer)] != inner_strides[at(k)] * inner_dim) return false;
  }
  return true;
}

// Position inside the loop while rows are walked in order.
struct Cursor {
  std::array<int64_t, kMaxRank> index{};
  std::array<int64_t, kMaxBroadcastInputs> offset{};  // elements

  Cursor(const BroadcastLoop& loop, int64_t element) {
    for (int axis = loop.rank - 1; axis >= 0; --axis) {
      const int64_t i = element % loop.dims[at(axis)];
      element /= loop.dims[at(axis)];
      index[at(axis)] = i;
      for (int k = 0; k < loop.num_inputs; ++k) offset[at(k)] += i * loop.strides[at(k)][at(axis)];
    }
  }

  // Goes to the start of the next row.
  void next_row(const BroadcastLoop& loop) {
    move(loop, loop.rank - 1, -index[at(loop.rank - 1)]);
    for (int axis = loop.rank - 2; axis >= 0; --axis) {
      if (index[at(axis)] + 1 < loop.dims[at(axis)]) {
        move(loop, axis, 1);
        return;
      }
      move(loop, axis, -index[at(axis)]);
    }
  }

 private:
  void move(const BroadcastLoop& loop, int axis, int64_t by) {
    index[at(axis)] += by;
    for (int k = 0; k < loop.num_inputs; ++k) offset[at(k)] += by * loop.strides[at(k)][at(axis)];
  }
};

void run_range(const BroadcastLoop& loop, const RowPass& pass, int64_t begin, int64_t end) {
  const int inner = loop.rank - 1;
  Cursor cursor(loop, begin);
  RowArgs row{.params = pass.params};
  for (int k = 0; k < loop.num_inputs; ++k) row.step[at(k)] = loop.strides[at(k)][at(inner)];
  while (begin < end) {
    row.n = std::min(end - begin, loop.dims[at(inner)] - cursor.index[at(inner)]);
    for (int k = 0; k < loop.num_inputs; ++k) {
      row.in[at(k)] =
          static_cast<const char*>(pass.in[at(k)]) + cursor.offset[at(k)] * pass.in_size[at(k)];
    }
    row.out = static_cast<char*>(pass.out) + begin * pass.out_size;
    pass.fn(row);
    begin += row.n;
    if (begin < end) cursor.next_row(loop);
  }
}

}  // namespace

BroadcastLoop make_broadcast_loop(std::initializer_list<const Shape*> inputs, const Shape& out) {
  BroadcastLoop loop;
  loop.num_inputs = static_cast<int>(inputs.size());
  loop.total = out.num_elements();
  std::array<std::array<int64_t, kMaxRank>, kMaxBroadcastInputs> full{};
  size_t next = 0;
  for (const Shape* shape : inputs) full[next++] = broadcast_strides(*shape, out);

  for (int axis = 0; axis < out.rank(); ++axis) {
    if (out[axis] == 1) continue;
    std::array<int64_t, kMaxBroadcastInputs> strides{};
    for (int k = 0; k < loop.num_inputs; ++k) strides[at(k)] = full[at(k)][at(axis)];
    const bool merge = loop.rank > 0 && can_merge(loop, loop.rank - 1, strides, out[axis]);
    const int target = merge ? loop.rank - 1 : loop.rank++;
    loop.dims[at(target)] = merge ? loop.dims[at(target)] * out[axis] : out[axis];
    for (int k = 0; k < loop.num_inputs; ++k) loop.strides[at(k)][at(target)] = strides[at(k)];
  }
  if (loop.rank == 0) {  // a single element
    loop.rank = 1;
    loop.dims[0] = 1;
    for (int k = 0; k < loop.num_inputs; ++k) loop.strides[at(k)][0] = 1;
  }
  return loop;
}

void run_rows(ThreadPool& pool, const BroadcastLoop& loop, const RowPass& pass) {
  pool.parallel_for(loop.total, pass.grain,
                    [&](int64_t begin, int64_t end, int) { run_range(loop, pass, begin, end); });
}

}  // namespace sprun::graph
