// FlatMap: 64-bit keys to 64-bit values in one open-addressed table, built once, then only read.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace sprun::text {

// Keys must not be ~0. Reading is thread-safe.
class FlatMap {
 public:
  explicit FlatMap(size_t expected = 0) { slots_.resize(std::bit_ceil(expected * 2 + 16)); }

  // The value, or null.
  const uint64_t* find(uint64_t key) const {
    const Slot& slot = slots_[place(key)];
    return slot.key == key ? &slot.value : nullptr;
  }

  // Of a key inserted twice the last value stays.
  void insert(uint64_t key, uint64_t value) {
    if ((size_ + 1) * 2 > slots_.size()) grow();
    Slot& slot = slots_[place(key)];
    size_ += slot.key != key;
    slot = {key, value};
  }

 private:
  struct Slot {
    uint64_t key = ~uint64_t{0}, value = 0;
  };

  // Where the key is, or the free slot where it belongs. At most half of the slots are taken, so
  // one is free.
  size_t place(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    uint64_t hash = key * 0x9e3779b97f4a7c15;
    size_t i = static_cast<size_t>(hash ^ (hash >> 32)) & mask;
    while (slots_[i].key != key && slots_[i].key != ~uint64_t{0}) i = (i + 1) & mask;
    return i;
  }

  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.key != ~uint64_t{0}) slots_[place(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

}  // namespace sprun::text
