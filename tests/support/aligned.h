// Memory from a multiple of 64 bytes on, as kernels want their packed weights and scratch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace sprun::testing_support {

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};
using Aligned = std::unique_ptr<char, FreeDeleter>;

// At least `bytes` bytes, each `fill`.
inline Aligned aligned(int64_t bytes, int fill) {
  const size_t size = static_cast<size_t>(std::max<int64_t>(bytes, 64) + 63) / 64 * 64;
  Aligned p(static_cast<char*>(std::aligned_alloc(64, size)));
  std::fill_n(p.get(), size, static_cast<char>(fill));
  return p;
}

}  // namespace sprun::testing_support
