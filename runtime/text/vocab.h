// Vocab: token strings and their ids, both ways.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sprun/status.h"

namespace sprun::text {

inline constexpr int64_t kMaxId = (int64_t{1} << 22) - 1;

// Built once; reading is thread-safe. Moving keeps views of tokens valid.
class Vocab {
 public:
  // kResourceLimit: id above kMaxId; kBadModel: negative, or a token with two ids. Two tokens of
  // one id are allowed (padded vocabularies have them): the first names it.
  Status add(std::string token, int64_t id);
  // The same, but a token that has an id already keeps it: the new id only gets the token as its
  // name.
  Status add_name(const std::string& token, int64_t id);

  std::optional<int64_t> id_of(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional<int64_t>(found->second);
  }
  // None for unused ids; valid as long as the vocabulary.
  std::optional<std::string_view> token_of(int64_t id) const {
    if (id < 0 || id >= size() || tokens_[static_cast<size_t>(id)].data() == nullptr)
      return std::nullopt;
    return tokens_[static_cast<size_t>(id)];
  }
  // One above the largest id.
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  Status check_id(std::string_view token, int64_t id) const;
  void name_id(int64_t id, std::string_view token);

  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> ids_;
  std::vector<std::string_view> tokens_;  // point into keys of ids_, which do not move
};

// "<0x41>" for byte 65.
std::string byte_token(uint8_t byte);
// The byte of such a token.
std::optional<uint8_t> byte_of_token(std::string_view token);
// Printable beginning of a token or text, for messages.
std::string shown(std::string_view text);

}  // namespace sprun::text
