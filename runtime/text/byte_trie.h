// ByteTrie: which of many strings begin at a place of a text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/text/flat_map.h"

namespace sprun::text {

// Strings with a number >= 0 each. Built once; reading is thread-safe.
class ByteTrie {
 public:
  // Keeps the first number of a string added twice. The empty string is ignored.
  void add(std::string_view key, int64_t number) {
    if (key.empty()) return;
    uint64_t node = 0;
    for (const char c : key) {
      const uint64_t edge = node << 8 | static_cast<unsigned char>(c);
      const uint64_t* next = edges_.find(edge);
      if (next != nullptr) {
        node = *next;
      } else {
        node = numbers_.size();
        numbers_.push_back(-1);
        edges_.insert(edge, node);
      }
    }
    if (numbers_[node] < 0) numbers_[node] = number;
  }

  // visit(length, number) for each string that begins at the start of text, shortest first.
  template <class Visit>
  void prefixes(std::string_view text, const Visit& visit) const {
    uint64_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const uint64_t* next = edges_.find(node << 8 | static_cast<unsigned char>(text[i]));
      if (next == nullptr) return;
      node = *next;
      if (numbers_[node] >= 0) visit(i + 1, numbers_[node]);
    }
  }

  bool empty() const { return numbers_.size() == 1; }

 private:
  FlatMap edges_;
  std::vector<int64_t> numbers_{-1};  // per node; node 0 is the root
};

}  // namespace sprun::text
