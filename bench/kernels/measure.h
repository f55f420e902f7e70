// What programs that compare two sides in turns share: time, its quantiles, memory.
#pragma once

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace sprun::bench {

// Seconds: CPU time of the thread, which a busy machine disturbs less, or elapsed time.
inline double now(clockid_t clock = CLOCK_THREAD_CPUTIME_ID) {
  timespec t;
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// The element that `part` of the others are below.
inline double quantile(std::vector<double> v, double part) {
  std::sort(v.begin(), v.end());
  return v[static_cast<size_t>(part * static_cast<double>(v.size()))];
}
inline double median(const std::vector<double>& v) { return quantile(v, 0.5); }

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<char, Free>;

// At least `bytes` bytes, each `fill`, on 2 MiB pages where there are any, as the runtime keeps
// packed weights.
inline Buffer allocate(int64_t bytes, int fill = 0) {
  constexpr int64_t kPage = 2 << 20;
  const auto size = static_cast<size_t>((bytes + kPage) / kPage * kPage);
  Buffer b(static_cast<char*>(std::aligned_alloc(kPage, size)));
  madvise(b.get(), size, MADV_HUGEPAGE);
  std::memset(b.get(), fill, size);
  return b;
}

template <class T>
T* as(const Buffer& b) {
  return reinterpret_cast<T*>(b.get());
}

}  // namespace sprun::bench
