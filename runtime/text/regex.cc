// PCRE2 with Unicode classes. What Oniguruma's Ruby syntax means otherwise is rewritten before: \h
// and \w; ^ and $ are at every line. Machine code is made where the system allows it.
#include "runtime/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "runtime/text/unicode.h"

namespace sprun::text {
namespace {

constexpr size_t kMaxPattern = 1 << 16;
constexpr uint32_t kMatchLimit = 10'000'000;

Status bad_pattern(const std::string& pattern, size_t at, const std::string& reason) {
  constexpr size_t kShown = 200;
  const std::string shown = pattern.size() > kShown ? pattern.substr(0, kShown) + "..." : pattern;
  return {Code::kBadModel,
          "regular expression \"" + shown + "\", byte " + std::to_string(at) + ": " + reason};
}

// The text that PCRE2 needs for \c, or "" to keep it as it is.
std::string_view rewritten_escape(char c, bool in_class) {
  if (c == 'h') return in_class ? "0-9a-fA-F" : "[0-9a-fA-F]";
  if (c == 'w')
    return in_class ? "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}" : "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}]";
  if (c == 'W' && !in_class) return "[^\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}]";
  return {};
}

Result<std::string> to_pcre(const std::string& pattern) {
  std::string out;
  bool in_class = false;
  size_t class_begin = 0;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const std::string_view better = rewritten_escape(pattern[i + 1], in_class);
      out += better.empty() ? std::string_view(pattern).substr(i, 2) : better;
      ++i;
      continue;
    }
    if (in_class &&
        (pattern.compare(i, 2, "&&") == 0 || (c == '[' && pattern.compare(i, 2, "[:") != 0))) {
      return bad_pattern(pattern, i, "sets inside [] are not supported");
    }
    if (in_class && pattern.compare(i, 2, "[:") == 0) {
      const size_t end = pattern.find(":]", i + 2);
      if (end == std::string::npos) return bad_pattern(pattern, i, "[: without :]");
      out.append(pattern, i, end + 2 - i);
      i = end + 1;
      continue;
    }
    if (!in_class && c == '[') {
      in_class = true;
      class_begin = i + (pattern.compare(i, 2, "[^") == 0 ? 2 : 1);
    } else if (in_class && c == ']' && i != class_begin) {
      in_class = false;
    }
    out += c;
  }
  return out;
}

using MatchData = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;
using MatchContext = std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)>;

}  // namespace

Result<Regex> Regex::compile(const std::string& pattern) {
  if (pattern.size() > kMaxPattern) return bad_pattern(pattern, kMaxPattern, "longer than 64 KiB");
  SPRUN_ASSIGN(const std::string translated, to_pcre(pattern));
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  size_t at = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &at, context.get());
  if (code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof(message));
    return bad_pattern(pattern, std::min(at, pattern.size()),
                       reinterpret_cast<const char*>(message));
  }
  std::shared_ptr<const void> owner(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
  // Without machine code (a system that forbids making it) the interpreter gives the same matches.
  static_cast<void>(pcre2_jit_compile(code, PCRE2_JIT_COMPLETE));
  return Regex(std::move(owner));
}

Status Regex::find_all(std::string_view text, std::vector<Range>* matches) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const MatchData data(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  const MatchContext context(pcre2_match_context_create(nullptr), pcre2_match_context_free);
  if (!data || !context) throw std::bad_alloc();
  pcre2_set_match_limit(context.get(), kMatchLimit);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  for (size_t pos = 0; pos <= text.size();) {
    // The text is known to be UTF-8; checking it at each match would make long texts quadratic.
    int rc =
        pcre2_match(code, subject, text.size(), pos, PCRE2_NO_UTF_CHECK, data.get(), context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code, subject, text.size(), pos, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       data.get(), context.get());
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      PCRE2_UCHAR message[256];
      pcre2_get_error_message(rc, message, sizeof(message));
      return {Code::kResourceLimit, "regular expression of the tokenizer at byte " +
                                        std::to_string(pos) +
                                        " of the text: " + reinterpret_cast<const char*>(message)};
    }
    const size_t* range = pcre2_get_ovector_pointer(data.get());
    const size_t begin = range[0],
                 end = std::max(range[0], range[1]);  // \K may put the begin behind the end
    matches->push_back({begin, end});
    pos = end > pos || end > begin ? end : end + (end < text.size() ? char_length(text[end]) : 1);
  }
  return {};
}

}  // namespace sprun::text
