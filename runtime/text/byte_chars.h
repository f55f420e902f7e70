// The 256 printable characters that stand for bytes in byte-level BPE vocabularies (GPT-2):
// printable Latin-1 bytes stand for themselves, the others are U+0100 and up in order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sprun::text {

// Every byte replaced by its character.
std::string bytes_to_chars(std::string_view bytes);
// Back; none if a character stands for no byte. Precondition: valid UTF-8.
std::optional<std::string> chars_to_bytes(std::string_view chars);

}  // namespace sprun::text
