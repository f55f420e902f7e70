// Memory planner: gives every block that lives during a range of steps an offset in one arena, so that blocks that
// live at the same time do not overlap.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace sprun {

struct MemoryBlock {
  int64_t size_bytes = 0;
  int first_step = 0, last_step = 0;  // inclusive
  int64_t offset = 0;                 // result, a multiple of 64
};

// Greedy by size: the largest block first, each at the lowest offset that is free while it lives. Returns the size of
// the arena. O(n^2).
int64_t plan_memory(std::span<MemoryBlock> blocks);

}  // namespace sprun
