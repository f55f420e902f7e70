// Cutting a text at matches of a pattern, as the "Split" stage and its relatives do.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/text/json_fields.h"
#include "runtime/text/regex.h"
#include "runtime/text/unicode.h"

namespace sprun::text {

// A string or a regular expression: {"String": "x"} or {"Regex": "x"} in the file.
class Pattern {
 public:
  static Result<Pattern> parse(const Fields& fields, const char* key);
  static Pattern literal(std::string text) { return Pattern(std::move(text), std::nullopt); }
  static Pattern regex(Regex regex) { return Pattern("", std::move(regex)); }

  Status find_all(std::string_view text, std::vector<Range>* matches) const;
  // Every match replaced by `content`.
  Status replace(const std::string& content, std::string* text) const;

 private:
  Pattern(std::string text, std::optional<Regex> regex)
      : text_(std::move(text)), regex_(std::move(regex)) {}
  std::string text_;
  std::optional<Regex> regex_;
};

// What becomes of the matches: dropped, parts of their own, glued to a neighbour, or one part for
// each run of matches.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Result<SplitBehavior> parse_behavior(const Fields& fields, SplitBehavior fallback);

// Parts of a text of `size` bytes, in order, none empty. matches: rising, not overlapping.
// inverted: what lies between them counts as the match.
std::vector<Range> split(size_t size, const std::vector<Range>& matches, SplitBehavior behavior,
                         bool inverted = false);

// Ranges of single characters for which `is` holds.
template <class Is>
std::vector<Range> matching_chars(std::string_view text, const Is& is) {
  std::vector<Range> matches;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (is(next_char(text, &pos))) matches.push_back({begin, pos});
  }
  return matches;
}

}  // namespace sprun::text
