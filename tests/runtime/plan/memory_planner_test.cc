#include "runtime/plan/memory_planner.h"

#include <gtest/gtest.h>

#include <random>

namespace sprun {
namespace {

TEST(MemoryPlanner, ReusesMemoryOfBlocksThatDoNotLiveTogether) {
  std::vector<MemoryBlock> blocks = {{100, 0, 1}, {100, 2, 3}};
  EXPECT_EQ(plan_memory(blocks), 128);
  EXPECT_EQ(blocks[0].offset, blocks[1].offset);
}

TEST(MemoryPlanner, KeepsBlocksThatMeetInOneStepApart) {
  std::vector<MemoryBlock> blocks = {{64, 0, 1}, {64, 1, 2}};
  EXPECT_EQ(plan_memory(blocks), 128);
  EXPECT_NE(blocks[0].offset, blocks[1].offset);
}

TEST(MemoryPlanner, NeverOverlapsLiveBlocksAndAlignsThem) {
  std::mt19937 rng(7);
  std::vector<MemoryBlock> blocks;
  for (int i = 0; i < 200; ++i) {
    const int first = static_cast<int>(rng() % 50);
    blocks.push_back({static_cast<int64_t>(rng() % 5000), first, first + static_cast<int>(rng() % 10)});
  }
  const int64_t arena = plan_memory(blocks);
  for (size_t a = 0; a < blocks.size(); ++a) {
    EXPECT_EQ(blocks[a].offset % 64, 0);
    EXPECT_LE(blocks[a].offset + blocks[a].size_bytes, arena);
    for (size_t b = 0; b < a; ++b) {
      const bool together =
          blocks[a].first_step <= blocks[b].last_step && blocks[b].first_step <= blocks[a].last_step;
      const bool apart = blocks[a].offset + blocks[a].size_bytes <= blocks[b].offset ||
                         blocks[b].offset + blocks[b].size_bytes <= blocks[a].offset;
      const bool empty = blocks[a].size_bytes == 0 || blocks[b].size_bytes == 0;
      EXPECT_TRUE(!together || apart || empty) << a << " and " << b;
    }
  }
}

}  // namespace
}  // namespace sprun
