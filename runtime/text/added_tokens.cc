// Finding added tokens.
#include "runtime/text/added_tokens.h"

#include <algorithm>

#include "runtime/text/unicode.h"

namespace sprun::text {
namespace {

bool touches_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    size_t pos = previous_start(text, begin);
    if (is_word(next_char(text, &pos))) return true;
  }
  return end < text.size() && is_word(next_char(text, &end));
}

size_t skip_space_left(std::string_view text, size_t begin, size_t least) {
  while (begin > least) {
    const size_t start = previous_start(text, begin);
    size_t pos = start;
    if (!is_whitespace(next_char(text, &pos))) break;
    begin = start;
  }
  return std::max(begin, least);
}

size_t skip_space_right(std::string_view text, size_t end) {
  for (size_t pos = end; pos < text.size(); end = pos) {
    if (!is_whitespace(next_char(text, &pos))) break;
  }
  return end;
}

}  // namespace

Status AddedTokens::add(AddedToken token) {
  SPRUN_TRY(vocab_.add(token.content, token.id));
  if (!by_id_.emplace(token.id, tokens_.size()).second) {
    return {Code::kBadModel, "token " + shown(token.content) + ": its id " +
                                 std::to_string(token.id) + " is already of " +
                                 shown(tokens_[by_id_[token.id]].content)};
  }
  tokens_.push_back(std::move(token));
  return {};
}

Status AddedTokens::finish(const Normalizer* normalizer) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    std::string content = tokens_[i].content;
    if (tokens_[i].normalized && normalizer != nullptr) SPRUN_TRY(normalizer->apply(&content));
    (tokens_[i].normalized ? normalized_ : written_).add(content, static_cast<int64_t>(i));
  }
  return {};
}

std::vector<Section> AddedTokens::split(std::string_view text, bool normalized) const {
  std::vector<Section> sections;
  const ByteTrie& trie = normalized ? normalized_ : written_;
  size_t done = 0;
  for (size_t at = 0; at < text.size() && !trie.empty();) {
    size_t length = 0;
    int64_t found = -1;
    trie.prefixes(text.substr(at), [&](size_t bytes, int64_t number) {
      length = bytes;
      found = number;
    });
    if (found < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    size_t begin = at, end = at + length;
    at = end;
    if (token.single_word && touches_word(text, begin, end)) continue;
    if (token.lstrip) begin = skip_space_left(text, begin, done);
    if (token.rstrip) end = skip_space_right(text, end);
    if (begin > done) sections.push_back({text.substr(done, begin - done), -1});
    sections.push_back({text.substr(begin, end - begin), token.id});
    done = at = end;
  }
  if (done < text.size()) sections.push_back({text.substr(done), -1});
  return sections;
}

bool AddedTokens::is_special(int64_t id) const {
  const auto found = by_id_.find(id);
  return found != by_id_.end() && tokens_[found->second].special;
}

Result<std::vector<AddedToken>> read_added_tokens(const Json& list, const std::string& place) {
  if (!list.is_array()) return unexpected(place, "an array", list);
  std::vector<AddedToken> tokens;
  for (const Json& value : list) {
    SPRUN_ASSIGN(const Fields fields,
                 Fields::of(value, place + "[" + std::to_string(tokens.size()) + "]"));
    AddedToken token;
    SPRUN_ASSIGN(token.content, fields.text("content"));
    SPRUN_ASSIGN(token.id, fields.integer("id", 0, kMaxId));
    SPRUN_ASSIGN(token.single_word, fields.flag("single_word", false));
    SPRUN_ASSIGN(token.lstrip, fields.flag("lstrip", false));
    SPRUN_ASSIGN(token.rstrip, fields.flag("rstrip", false));
    SPRUN_ASSIGN(token.special, fields.flag("special", false));
    SPRUN_ASSIGN(token.normalized, fields.flag("normalized", !token.special));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace sprun::text
