#include "runtime/plan/memory_planner.h"

#include <algorithm>
#include <numeric>

namespace sprun {

namespace {
constexpr int64_t kAlign = 64;

bool live_together(const MemoryBlock& a, const MemoryBlock& b) {
  return a.first_step <= b.last_step && b.first_step <= a.last_step;
}
}  // namespace

int64_t plan_memory(std::span<MemoryBlock> blocks) {
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return blocks[a].size_bytes > blocks[b].size_bytes; });
  int64_t arena = 0;
  std::vector<size_t> placed;  // sorted by offset
  for (size_t i : order) {
    MemoryBlock& block = blocks[i];
    const int64_t size = (block.size_bytes + kAlign - 1) / kAlign * kAlign;
    int64_t offset = 0;
    for (size_t j : placed) {
      const MemoryBlock& other = blocks[j];
      if (!live_together(block, other)) continue;
      if (offset + size <= other.offset) break;
      offset = std::max(offset, other.offset + (other.size_bytes + kAlign - 1) / kAlign * kAlign);
    }
    block.offset = offset;
    arena = std::max(arena, offset + size);
    const auto at = std::upper_bound(placed.begin(), placed.end(), offset,
                                     [&](int64_t o, size_t j) { return o < blocks[j].offset; });
    placed.insert(at, i);
  }
  return arena;
}

}  // namespace sprun
