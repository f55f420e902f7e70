// UTF-8 and the Unicode properties that tokenizers ask for (utf8proc behind it).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sprun::text {

inline constexpr char32_t kReplacement = 0xFFFD;
inline constexpr std::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

// Bytes of the character that starts with `lead`. Precondition: valid UTF-8.
inline size_t char_length(char lead) {
  const auto b = static_cast<unsigned char>(lead);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}

// The character at text[*pos]; moves *pos behind it. Precondition: *pos < text.size(). In broken
// UTF-8 the result is some number, and *pos stays within the text.
char32_t next_char(std::string_view text, size_t* pos);
// Start of the character that ends before `pos`. Precondition: pos > 0.
size_t previous_start(std::string_view text, size_t pos);
void append_char(char32_t c, std::string* out);
size_t count_chars(std::string_view text);

bool is_valid_utf8(std::string_view bytes);
// Each maximal part of a broken sequence becomes one U+FFFD (Unicode 3.9, table 3-8).
std::string repair_utf8(std::string_view bytes);
// The same for what is complete in *bytes, which is taken out; the begin of a character stays in
// *bytes.
std::string take_complete_utf8(std::string* bytes);

bool is_whitespace(char32_t c);   // property White_Space
bool is_punctuation(char32_t c);  // ASCII signs that are no letters or digits, and categories P*
bool is_number(char32_t c);       // categories N*
bool is_word(char32_t c);         // letters, marks, decimal digits, connectors, joiners
bool is_mark(char32_t c);         // categories M*
bool is_nonspacing_mark(char32_t c);
bool is_control(char32_t c);  // categories Cc, Cf, Co

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
// Precondition of the functions below: valid UTF-8. Throws std::bad_alloc.
std::string normalise(std::string_view text, NormalForm form);
std::string lowercase(std::string_view text);  // each character by itself
// Bytes of the first extended grapheme cluster. Precondition: not empty.
size_t grapheme_length(std::string_view text);

}  // namespace sprun::text
