// Reading and walking SentencePiece's double-array trie. Every index comes from the file, so every
// step is checked.
#include "runtime/text/char_map.h"

#include <cstring>

#include "runtime/text/unicode.h"

namespace sprun::text {
namespace {

// Fields of a unit: a label (or a value, in a leaf), the distance to the children, and whether a
// leaf is among them.
bool has_leaf(uint32_t unit) { return unit >> 8 & 1; }
uint32_t value_of(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t label_of(uint32_t unit) { return unit & 0x800000FF; }
uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 0x200) >> 6); }

int digit_of(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

Result<std::string> decode_base64(std::string_view encoded) {
  while (!encoded.empty() && encoded.back() == '=') encoded.remove_suffix(1);
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (size_t i = 0; i < encoded.size(); ++i) {
    const int digit = digit_of(encoded[i]);
    if (digit < 0)
      return Status(Code::kBadModel, "character " + std::to_string(i) + " is not base64");
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 0xFF);
  }
  return out;
}

}  // namespace

Result<CharMap> CharMap::parse_base64(std::string_view encoded) {
  CharMap map;
  if (encoded.empty()) return map;
  SPRUN_ASSIGN(const std::string bytes, decode_base64(encoded));
  uint32_t trie_bytes = 0;
  if (bytes.size() < sizeof(trie_bytes))
    return Status(Code::kBadModel, "expected 4 bytes or more, got " + std::to_string(bytes.size()));
  std::memcpy(&trie_bytes, bytes.data(), sizeof(trie_bytes));
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes > bytes.size() - 4) {
    return Status(Code::kBadModel, "expected a trie of up to " + std::to_string(bytes.size() - 4) +
                                       " bytes, a multiple of 4, got " +
                                       std::to_string(trie_bytes));
  }
  map.units_.resize(trie_bytes / 4);
  std::memcpy(map.units_.data(), bytes.data() + 4, trie_bytes);
  map.replacements_ = bytes.substr(4 + trie_bytes);
  return map;
}

// Of the shortest key that begins `text`.
std::optional<std::string_view> CharMap::replacement(std::string_view text) const {
  if (units_.empty()) return std::nullopt;
  uint32_t node = offset_of(units_[0]);
  for (const char c : text) {
    const uint32_t byte = static_cast<unsigned char>(c);
    node ^= byte;
    if (byte == 0 || node >= units_.size() || label_of(units_[node]) != byte) return std::nullopt;
    const uint32_t unit = units_[node];
    node ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (node >= units_.size() || value_of(units_[node]) >= replacements_.size())
      return std::nullopt;
    const std::string_view found = std::string_view(replacements_).substr(value_of(units_[node]));
    const std::string_view value = found.substr(0, found.find('\0'));
    return is_valid_utf8(value) ? std::optional(value) : std::nullopt;
  }
  return std::nullopt;
}

std::string CharMap::apply(std::string_view text) const {
  constexpr size_t kLongestWhole = 5;
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::string_view cluster = text.substr(0, grapheme_length(text));
    text.remove_prefix(cluster.size());
    const auto whole = cluster.size() <= kLongestWhole ? replacement(cluster) : std::nullopt;
    if (whole) {
      out += *whole;
      continue;
    }
    for (size_t pos = 0; pos < cluster.size();) {
      const std::string_view one = cluster.substr(pos, char_length(cluster[pos]));
      out += replacement(one).value_or(one);
      pos += one.size();
    }
  }
  return out;
}

}  // namespace sprun::text
