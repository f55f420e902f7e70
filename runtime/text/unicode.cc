// UTF-8 by table 3-7 of the Unicode standard; properties from utf8proc.
#include "runtime/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace sprun::text {
namespace {

enum class Utf8 { kGood, kBroken, kIncomplete };

struct Utf8Part {
  Utf8 kind;
  size_t length;
};

// The character, broken part or begin of a character at the start of bytes (not empty).
Utf8Part first_part(std::string_view bytes) {
  const auto at = [bytes](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {Utf8::kGood, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8::kBroken, 1};
  const size_t length = char_length(bytes[0]);
  // The second byte excludes overlong forms, surrogates and values above U+10FFFF.
  const unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Utf8::kIncomplete, i};
    const unsigned b = at(i);
    if (b < (i == 1 ? low : 0x80) || b > (i == 1 ? high : 0xBF)) return {Utf8::kBroken, i};
  }
  return {Utf8::kGood, length};
}

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

}  // namespace

char32_t next_char(std::string_view text, size_t* pos) {
  const auto at = [&](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[*pos + i]));
  };
  const size_t length = std::min(char_length(text[*pos]), text.size() - *pos);
  char32_t c = length == 1 ? at(0) : at(0) & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i) c = c << 6 | (at(i) & 0x3F);
  *pos += length;
  return c;
}

size_t previous_start(std::string_view text, size_t pos) {
  do --pos;
  while (pos > 0 && (text[pos] & 0xC0) == 0x80);
  return pos;
}

void append_char(char32_t c, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const auto n = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(n));
}

size_t count_chars(std::string_view text) {
  size_t n = 0;
  for (const char c : text) n += (c & 0xC0) != 0x80;
  return n;
}

bool is_valid_utf8(std::string_view bytes) {
  while (!bytes.empty()) {
    const Utf8Part part = first_part(bytes);
    if (part.kind != Utf8::kGood) return false;
    bytes.remove_prefix(part.length);
  }
  return true;
}

std::string take_complete_utf8(std::string* bytes) {
  std::string out;
  std::string_view rest = *bytes;
  while (!rest.empty()) {
    const Utf8Part part = first_part(rest);
    if (part.kind == Utf8::kIncomplete) break;
    out += part.kind == Utf8::kGood ? rest.substr(0, part.length) : kReplacementUtf8;
    rest.remove_prefix(part.length);
  }
  *bytes = std::string(rest);
  return out;
}

std::string repair_utf8(std::string_view bytes) {
  std::string rest(bytes);
  std::string out = take_complete_utf8(&rest);
  if (!rest.empty()) out += kReplacementUtf8;
  return out;
}

bool is_whitespace(char32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
           (c >= 123 && c <= 126);
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool is_number(char32_t c) {
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

bool is_mark(char32_t c) {
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t c) { return category(c) == UTF8PROC_CATEGORY_MN; }

bool is_control(char32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
}

bool is_word(char32_t c) {
  const auto k = category(c);
  if (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) return true;  // L*, M*, Nd, Nl
  if (k == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D) return true;
  // Letters in circles and squares are symbols by category, but alphabetic.
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

std::string normalise(std::string_view text, NormalForm form) {
  int options = UTF8PROC_STABLE;
  options |=
      form == NormalForm::kNfc || form == NormalForm::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kNfkc || form == NormalForm::kNfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* out = nullptr;
  const auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                              static_cast<utf8proc_ssize_t>(text.size()), &out,
                              static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(out, std::free);
  if (n < 0) throw std::bad_alloc();  // the text is valid: nothing else can fail
  return {reinterpret_cast<const char*>(out), static_cast<size_t>(n)};
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, &pos);
    if (c < 0x80) {
      out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    } else if (c == 0x130) {
      out += "i\xCC\x87";  // I with a dot is the only letter whose lowercase is two characters
    } else {
      append_char(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), &out);
    }
  }
  return out;
}

size_t grapheme_length(std::string_view text) {
  size_t pos = 0;
  auto before = static_cast<utf8proc_int32_t>(next_char(text, &pos));
  utf8proc_int32_t state = 0;
  while (pos < text.size()) {
    size_t next = pos;
    const auto c = static_cast<utf8proc_int32_t>(next_char(text, &next));
    if (utf8proc_grapheme_break_stateful(before, c, &state)) break;
    before = c;
    pos = next;
  }
  return pos;
}

}  // namespace sprun::text
