// The parallel_for that kernel drivers take, for tests: several workers one after the other.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sprun::testing_support {

// Calls fn(begin, end, worker) on ranges of `grain`, which tear rows of a grid apart, with workers in turn.
struct SerialParallelFor {
  int workers;
  template <class Fn>
  void operator()(int64_t n, int64_t grain, const Fn& fn) const {
    int worker = 0;
    for (int64_t begin = 0; begin < n; begin += grain) {
      fn(begin, std::min(n, begin + grain), worker);
      worker = (worker + 1) % workers;
    }
  }
};

}  // namespace sprun::testing_support
