// The broadcast engine: every op that combines up to three tensors element by element runs through
// it.
//
//   const BroadcastLoop loop = make_broadcast_loop({&a.shape, &b.shape}, out.shape);
//   run_rows(ctx.pool(), loop, {.in = {a.data, b.data}, .in_size = {4, 4}, .out = out.data,
//   .out_size = 4, .fn = add_row});
//
// Axes that every input walks in the same way are merged first, so that most broadcasts end as one
// long row or a few of them. An op then only says what to do with one row, in which an input is
// either contiguous or a single value.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>

#include "runtime/base/thread_pool.h"
#include "sprun/shape.h"

namespace sprun::graph {

inline constexpr int kMaxBroadcastInputs = 3;

// Elements of work that are worth a task: cheap operations (an addition) and dear ones (a call into
// libm).
inline constexpr int64_t kCheapGrain = 16384;
inline constexpr int64_t kMathGrain = 2048;

struct BroadcastLoop {
  int rank = 0;  // after merging, at least 1
  int num_inputs = 0;
  int64_t total = 0;  // elements of the output
  std::array<int64_t, kMaxRank> dims{};
  // In elements, outermost axis first. The innermost stride is 0 or 1.
  std::array<std::array<int64_t, kMaxRank>, kMaxBroadcastInputs> strides{};
};

// Precondition: every shape broadcasts to `out`.
BroadcastLoop make_broadcast_loop(std::initializer_list<const Shape*> inputs, const Shape& out);

// One row: out[i] = f(in[0][i * step[0]], ...), 0 <= i < n, n >= 1. step is 0 or 1. `out` may be
// in[0] where step[0] is 1.
struct RowArgs {
  std::array<const void*, kMaxBroadcastInputs> in{};
  std::array<int64_t, kMaxBroadcastInputs> step{};
  void* out = nullptr;
  int64_t n = 0;
  const void* params = nullptr;  // RowPass::params

  template <class T>
  const T* input(size_t k) const {
    return static_cast<const T*>(in[k]);
  }
  template <class T>
  T* output() const {
    return static_cast<T*>(out);
  }
};
using RowFn = void(const RowArgs&);

struct RowPass {
  std::array<const void*, kMaxBroadcastInputs> in{};
  std::array<int64_t, kMaxBroadcastInputs> in_size{};  // bytes of one element
  void* out = nullptr;
  int64_t out_size = 0;
  RowFn* fn = nullptr;
  const void* params = nullptr;
  int64_t grain = kCheapGrain;
};

// Calls pass.fn for rows that cover the output once, on the threads of `pool`. Does not allocate.
void run_rows(ThreadPool& pool, const BroadcastLoop& loop, const RowPass& pass);

// A row of a two-input operation. Op has `static R apply(T a, T b)`.
template <class T, class R, class Op>
void binary_row(const RowArgs& row) {
  const T* a = row.input<T>(0);
  const T* b = row.input<T>(1);
  R* y = row.output<R>();
  if (row.step[0] != 0 && row.step[1] != 0) {
    for (int64_t i = 0; i < row.n; ++i) y[i] = Op::apply(a[i], b[i]);
  } else if (row.step[0] != 0) {
    const T right = *b;
    for (int64_t i = 0; i < row.n; ++i) y[i] = Op::apply(a[i], right);
  } else if (row.step[1] != 0) {
    const T left = *a;
    for (int64_t i = 0; i < row.n; ++i) y[i] = Op::apply(left, b[i]);
  } else {
    std::fill_n(y, row.n, Op::apply(*a, *b));
  }
}

}  // namespace sprun::graph
