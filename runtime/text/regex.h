// Regular expressions of tokenizer files, which are written for Oniguruma, run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/status.h"

namespace sprun::text {

// Bytes [begin, end) of a text.
struct Range {
  size_t begin, end;
};

// Immutable; thread-safe.
class Regex {
 public:
  // kBadModel: not a regular expression, or one with set operations inside [], which PCRE2 lacks.
  static Result<Regex> compile(const std::string& pattern);
  // Every match, left to right, not overlapping. Precondition: valid UTF-8.
  // kResourceLimit: the pattern backtracks too much on this text.
  Status find_all(std::string_view text, std::vector<Range>* matches) const;

 private:
  explicit Regex(std::shared_ptr<const void> code) : code_(std::move(code)) {}
  std::shared_ptr<const void> code_;
};

}  // namespace sprun::text
