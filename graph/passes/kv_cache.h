// What pass_cache_attention needs to know to keep keys and values in memory of a session.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "graph/ir/graph.h"

namespace sprun::graph {

// A graph whose state inputs hold `past` tokens, as exporters write it, and the inputs that shall replace them.
struct KvCacheSpec {
  // One tensor of keys or values.
  struct Slot {
    ValueId past = kNoValue;    // [1, heads, past, dim], or the part of [2, 1, heads, past, dim]
    int part = -1;              // 0 or 1 of a leading axis of two; -1: all of it
    ValueId cache = kNoValue;   // [heads, capacity, dim] f32, bf16 or s8
    ValueId scales = kNoValue;  // [heads, capacity] f32, with s8 only
  };
  std::vector<Slot> slots;
  ValueId position = kNoValue;   // s64 [1]: p, tokens in the cache before this step
  ValueId positions = kNoValue;  // s64 [1, tokens]: p, p + 1, ...
  int64_t past = 0;              // P of the shapes the graph has now
};

}  // namespace sprun::graph
