// Cutting a text at matches.
#include "runtime/text/split.h"

#include <algorithm>

namespace sprun::text {
namespace {

struct Segment {
  Range range;
  bool match;
};

std::vector<Segment> segments_of(size_t size, const std::vector<Range>& matches, bool inverted) {
  std::vector<Segment> segments;
  size_t done = 0;
  for (const Range& m : matches) {
    if (m.begin > done) segments.push_back({{done, m.begin}, inverted});
    segments.push_back({m, !inverted});
    done = m.end;
  }
  if (done < size) segments.push_back({{done, size}, inverted});
  return segments;
}

std::vector<Range> merged_with_previous(const std::vector<Segment>& segments) {
  std::vector<Range> parts;
  bool after_match = false;
  for (const Segment& s : segments) {
    if (s.match && !after_match && !parts.empty()) {
      parts.back().end = s.range.end;
    } else {
      parts.push_back(s.range);
    }
    after_match = s.match;
  }
  return parts;
}

std::vector<Range> merged_with_next(const std::vector<Segment>& segments) {
  std::vector<Range> parts;
  bool before_match = false;
  for (size_t i = segments.size(); i-- > 0;) {
    const Segment& s = segments[i];
    if (s.match && !before_match && !parts.empty()) {
      parts.back().begin = s.range.begin;
    } else {
      parts.push_back(s.range);
    }
    before_match = s.match;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<Range> contiguous(const std::vector<Segment>& segments) {
  std::vector<Range> parts;
  bool match = false;
  for (const Segment& s : segments) {
    if (s.match == match && !parts.empty()) {
      parts.back().end = s.range.end;
    } else {
      parts.push_back(s.range);
    }
    match = s.match;
  }
  return parts;
}

}  // namespace

Result<Pattern> Pattern::parse(const Fields& fields, const char* key) {
  SPRUN_ASSIGN(const Fields pattern, fields.object(key));
  if (pattern.find("String") != nullptr) {
    SPRUN_ASSIGN(std::string text, pattern.text("String"));
    return literal(std::move(text));
  }
  SPRUN_ASSIGN(const std::string source, pattern.text("Regex"));
  auto compiled = Regex::compile(source);
  if (!compiled.ok()) return compiled.status().with_context(pattern.place_of("Regex"));
  return regex(std::move(*compiled));
}

Status Pattern::find_all(std::string_view text, std::vector<Range>* matches) const {
  if (regex_) return regex_->find_all(text, matches);
  if (text_.empty()) return {};
  for (size_t at = text.find(text_); at != std::string_view::npos;
       at = text.find(text_, at + text_.size())) {
    matches->push_back({at, at + text_.size()});
  }
  return {};
}

Status Pattern::replace(const std::string& content, std::string* text) const {
  std::vector<Range> matches;
  SPRUN_TRY(find_all(*text, &matches));
  if (matches.empty()) return {};
  std::string out;
  size_t done = 0;
  for (const Range& m : matches) {
    out.append(*text, done, m.begin - done);
    out += content;
    done = m.end;
  }
  out.append(*text, done);
  *text = std::move(out);
  return {};
}

Result<SplitBehavior> parse_behavior(const Fields& fields, SplitBehavior fallback) {
  if (fields.find("behavior") == nullptr) return fallback;
  SPRUN_ASSIGN(const std::string name, fields.text("behavior"));
  constexpr std::string_view kNames[] = {"Removed", "Isolated", "MergedWithPrevious",
                                         "MergedWithNext", "Contiguous"};
  for (size_t i = 0; i < std::size(kNames); ++i) {
    if (name == kNames[i]) return static_cast<SplitBehavior>(i);
  }
  return unexpected(fields.place_of("behavior"),
                    "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous", name);
}

std::vector<Range> split(size_t size, const std::vector<Range>& matches, SplitBehavior behavior,
                         bool inverted) {
  const std::vector<Segment> segments = segments_of(size, matches, inverted);
  std::vector<Range> parts;
  switch (behavior) {
    case SplitBehavior::kRemoved:
    case SplitBehavior::kIsolated:
      for (const Segment& s : segments) {
        if (behavior == SplitBehavior::kIsolated || !s.match) parts.push_back(s.range);
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      parts = merged_with_previous(segments);
      break;
    case SplitBehavior::kMergedWithNext:
      parts = merged_with_next(segments);
      break;
    case SplitBehavior::kContiguous:
      parts = contiguous(segments);
      break;
  }
  std::erase_if(parts, [](const Range& r) { return r.begin == r.end; });
  return parts;
}

}  // namespace sprun::text
