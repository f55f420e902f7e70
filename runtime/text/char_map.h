// CharMap: the replacement table of a SentencePiece model ("Precompiled" normalizer).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/status.h"

namespace sprun::text {

// A double-array trie from character sequences to replacements. Immutable; thread-safe.
class CharMap {
 public:
  // Layout after base64: u32 size of the trie in bytes, the trie as u32 units, then replacements
  // that end with 0. kBadModel: broken.
  static Result<CharMap> parse_base64(std::string_view encoded);
  // Each grapheme cluster shorter than 6 bytes that begins with a key is replaced as a whole by the
  // replacement of its shortest key; other clusters character by character. Precondition: valid
  // UTF-8.
  std::string apply(std::string_view text) const;

 private:
  std::optional<std::string_view> replacement(std::string_view text) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace sprun::text
