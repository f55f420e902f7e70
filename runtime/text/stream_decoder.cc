// StreamDecoder: the text of a token is what it adds to the text of the few tokens before it. Only
// the place of a token next to others matters to decoders (a space before a word, none before the
// first), so a short window suffices.
#include <algorithm>
#include <new>

#include "runtime/text/tokenizer_impl.h"
#include "runtime/text/unicode.h"
#include "sprun/tokenizer.h"

namespace sprun {
namespace {

constexpr size_t kWindow = 4;

}  // namespace

StreamDecoder::StreamDecoder(Tokenizer tokenizer, std::span<const int64_t> context,
                             bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {
  for (size_t i = context.size(); i-- > 0 && window_.size() < kWindow;) {
    const bool has_text = tokenizer_.impl().token_of(context[i]) &&
                          !(skip_special && tokenizer_.is_special(context[i]));
    if (has_text) window_.insert(window_.begin(), context[i]);
  }
}

Result<std::string> StreamDecoder::push(int64_t id) try {
  if (!tokenizer_.impl().token_of(id)) {
    return Status(Code::kBadInput, "expected a token of the vocabulary, got " + std::to_string(id));
  }
  if (skip_special_ && tokenizer_.is_special(id)) return std::string();
  std::vector<int64_t> longer = window_;
  longer.push_back(id);
  SPRUN_ASSIGN(const std::string before,
               tokenizer_.impl().decode(window_, skip_special_, text::DecodeMode::kRaw));
  SPRUN_ASSIGN(const std::string after,
               tokenizer_.impl().decode(longer, skip_special_, text::DecodeMode::kRaw));
  if (longer.size() > kWindow) longer.erase(longer.begin());
  window_ = std::move(longer);
  pending_ += after.substr(std::min(before.size(), after.size()));
  return text::take_complete_utf8(&pending_);
} catch (const std::bad_alloc&) {
  return Status(Code::kResourceLimit, "no memory for the text of a token");
}

std::string StreamDecoder::flush() {
  const std::string rest = text::repair_utf8(pending_);
  pending_.clear();
  return rest;
}

}  // namespace sprun
