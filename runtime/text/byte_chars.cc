// Bytes as printable characters.
#include "runtime/text/byte_chars.h"

#include <array>

#include "runtime/text/unicode.h"

namespace sprun::text {
namespace {

constexpr bool is_itself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

struct Tables {
  std::array<uint16_t, 256> char_of{};
  std::array<int16_t, 0x144> byte_of{};
};

constexpr Tables make_tables() {
  Tables t;
  for (auto& byte : t.byte_of) byte = -1;
  uint16_t next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const uint16_t c = is_itself(b) ? static_cast<uint16_t>(b) : next++;
    t.char_of[static_cast<size_t>(b)] = c;
    t.byte_of[c] = static_cast<int16_t>(b);
  }
  return t;
}

constexpr Tables kTables = make_tables();

}  // namespace

std::string bytes_to_chars(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() + bytes.size() / 4);
  for (const char b : bytes) {
    const unsigned c = kTables.char_of[static_cast<unsigned char>(b)];
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else {
      out += static_cast<char>(0xC0 | c >> 6);
      out += static_cast<char>(0x80 | (c & 0x3F));
    }
  }
  return out;
}

std::optional<std::string> chars_to_bytes(std::string_view chars) {
  std::string out;
  out.reserve(chars.size());
  for (size_t pos = 0; pos < chars.size();) {
    const char32_t c = next_char(chars, &pos);
    if (c >= kTables.byte_of.size() || kTables.byte_of[c] < 0) return std::nullopt;
    out += static_cast<char>(kTables.byte_of[c]);
  }
  return out;
}

}  // namespace sprun::text
