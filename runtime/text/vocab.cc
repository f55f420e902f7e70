// Vocab and the spelling of byte tokens.
#include "runtime/text/vocab.h"

#include "runtime/text/unicode.h"

namespace sprun::text {

Status Vocab::check_id(std::string_view token, int64_t id) const {
  if (id < 0)
    return {Code::kBadModel,
            "token " + shown(token) + ": expected an id of 0 or more, got " + std::to_string(id)};
  if (id <= kMaxId) return {};
  return {Code::kResourceLimit, "token " + shown(token) + ": expected an id up to " +
                                    std::to_string(kMaxId) + ", got " + std::to_string(id)};
}

void Vocab::name_id(int64_t id, std::string_view token) {
  if (id >= size()) tokens_.resize(static_cast<size_t>(id) + 1);
  std::string_view& name = tokens_[static_cast<size_t>(id)];
  if (name.data() == nullptr) name = token;
}

Status Vocab::add(std::string token, int64_t id) {
  SPRUN_TRY(check_id(token, id));
  const auto [it, is_new] = ids_.emplace(std::move(token), id);
  if (!is_new && it->second != id) {
    return {Code::kBadModel, "token " + shown(it->first) + " has two ids, " +
                                 std::to_string(it->second) + " and " + std::to_string(id)};
  }
  name_id(id, it->first);
  return {};
}

Status Vocab::add_name(const std::string& token, int64_t id) {
  SPRUN_TRY(check_id(token, id));
  name_id(id, ids_.emplace(token, id).first->first);
  return {};
}

std::string byte_token(uint8_t byte) {
  constexpr char kHex[] = "0123456789ABCDEF";
  return std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + '>';
}

std::optional<uint8_t> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<uint8_t>(value);
}

std::string shown(std::string_view text) {
  constexpr size_t kMost = 40;
  std::string out = "\"";
  for (const char c : text.substr(0, kMost)) {
    if (static_cast<unsigned char>(c) < 32) {
      out += "\\x" + byte_token(static_cast<uint8_t>(c)).substr(3, 2);
    } else {
      out += c;
    }
  }
  // A cut inside a character must not make the message broken UTF-8.
  return repair_utf8(out) + (text.size() > kMost ? "...\"" : "\"");
}

}  // namespace sprun::text
