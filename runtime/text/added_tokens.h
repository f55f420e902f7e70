// Added tokens: strings found in the text before anything else happens to it (special tokens and
// the user's own).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/text/byte_trie.h"
#include "runtime/text/pipeline.h"
#include "runtime/text/vocab.h"

namespace sprun::text {

struct AddedToken {
  std::string content;
  int64_t id = 0;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and behind it
  bool normalized = false;   // looked for after normalizing, in its own normalized form
  bool special = false;      // left out when decoding
};

// A part of a text: an added token, or (id -1) text between.
struct Section {
  std::string_view text;
  int64_t id = -1;
};

// Built once; reading is thread-safe.
class AddedTokens {
 public:
  // kBadModel, kResourceLimit: as Vocab::add.
  Status add(AddedToken token);
  // Call once, after all are added. normalizer may be null.
  Status finish(const Normalizer* normalizer);

  // The longest token at each place wins, from the left. normalized: which of the two kinds to look
  // for.
  std::vector<Section> split(std::string_view text, bool normalized) const;

  const Vocab& vocab() const { return vocab_; }
  bool is_special(int64_t id) const;

 private:
  Vocab vocab_;
  std::vector<AddedToken> tokens_;
  std::unordered_map<int64_t, size_t> by_id_;  // position in tokens_
  ByteTrie written_, normalized_;              // numbers are positions in tokens_
};

// The list "added_tokens" of tokenizer.json.
Result<std::vector<AddedToken>> read_added_tokens(const Json& list, const std::string& place);

}  // namespace sprun::text
