// KvMemory: where a session keeps keys and values. Address space for the whole context is reserved at once, so that a
// sequence grows without copies and kernels need no table of pages; the system gives memory page by page, when tokens are
// written. Nothing may fill it beforehand.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "sprun/status.h"

namespace sprun {

// Part of the memory: `rows` sequences of elements that grow next to each other (the heads of a cache).
struct KvPart {
  int64_t rows = 0, row_bytes = 0;
};

class KvMemory {
 public:
  KvMemory() = default;
  // Zeros everywhere, none of it taken yet. kResourceLimit if there is no address space for it.
  static Result<KvMemory> reserve(std::span<const KvPart> parts);

  // First byte of part i, 64-byte aligned.
  void* at(size_t i) const { return static_cast<char*>(memory_.get()) + offsets_[i]; }
  // Says that `tokens` of `capacity` are about to be there. From a quarter on pages of 2 MiB are asked for: reading them is 1.1
  // to 1.3 times as fast (decode, Zen 5), and by then they hold little that is not used.
  void expect(int64_t tokens, int64_t capacity);
  int64_t reserved_bytes() const { return size_; }
  // Memory that is taken now: whole pages.
  int64_t committed_bytes() const;
  // Gives all memory back. What is read or written afterwards starts as zeros again.
  void release();

 private:
  std::shared_ptr<void> memory_;
  int64_t size_ = 0;
  bool huge_ = false;
  std::vector<int64_t> offsets_;
};

}  // namespace sprun
