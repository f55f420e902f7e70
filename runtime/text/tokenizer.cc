// Tokenizer: runs the stages of the pipeline. Exceptions (no memory) end here.
#include "sprun/tokenizer.h"

#include <algorithm>
#include <new>

#include "runtime/text/tokenizer_impl.h"
#include "runtime/text/unicode.h"

namespace sprun {

Status Tokenizer::Impl::encode_text(std::string_view all, std::vector<int64_t>* ids) const {
  const auto encode_piece = [&](const text::Piece& piece) {
    return piece.text.empty() ? Status() : model->encode(piece.text, ids);
  };
  for (const text::Section& written : added.split(all, false)) {
    if (written.id >= 0) {
      ids->push_back(written.id);
      continue;
    }
    std::string normal(written.text);
    if (normalizer) SPRUN_TRY(normalizer->apply(&normal));
    for (const text::Section& section : added.split(normal, true)) {
      if (section.id >= 0) {
        ids->push_back(section.id);
        continue;
      }
      const bool at_start =
          written.text.data() == all.data() && section.text.data() == normal.data();
      std::vector<text::Piece> pieces{{std::string(section.text), at_start}};
      if (pre_tokenizer) SPRUN_TRY(pre_tokenizer->apply(&pieces));
      for (const text::Piece& piece : pieces) SPRUN_TRY(encode_piece(piece));
    }
  }
  return {};
}

std::optional<std::string_view> Tokenizer::Impl::token_of(int64_t id) const {
  const auto own = added.vocab().token_of(id);
  return own ? own : model->id_to_token(id);
}

std::optional<int64_t> Tokenizer::Impl::id_of(std::string_view token) const {
  const auto own = added.vocab().id_of(token);
  return own ? own : model->token_to_id(token);
}

Result<std::string> Tokenizer::Impl::decode(std::span<const int64_t> ids, bool skip_special,
                                            text::DecodeMode mode) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto token = token_of(ids[i]);
    if (!token) {
      return Status(Code::kBadInput, "ids[" + std::to_string(i) +
                                         "]: expected a token of the vocabulary, got " +
                                         std::to_string(ids[i]));
    }
    if (!(skip_special && added.is_special(ids[i]))) tokens.emplace_back(*token);
  }
  if (decoder) SPRUN_TRY(decoder->apply(&tokens, mode));
  std::string all;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && !decoder) all += ' ';
    all += tokens[i];
  }
  return mode == text::DecodeMode::kFinal ? text::repair_utf8(all) : all;
}

Tokenizer Tokenizer::bytes() { return Tokenizer(text::make_bytes()); }

Result<std::vector<int64_t>> Tokenizer::encode(std::string_view text, bool add_special) const try {
  std::string repaired;
  if (!impl_->model->takes_bytes() && !text::is_valid_utf8(text)) {
    repaired = text::repair_utf8(text);
    text = repaired;
  }
  std::vector<int64_t> ids;
  SPRUN_TRY(impl_->encode_text(text, &ids));
  if (!add_special) return ids;
  std::vector<int64_t> all;
  for (const auto& id : impl_->around) {
    if (id) {
      all.push_back(*id);
    } else {
      all.insert(all.end(), ids.begin(), ids.end());
    }
  }
  return all;
} catch (const std::bad_alloc&) {
  return Status(Code::kResourceLimit,
                "no memory for the tokens of a text of " + std::to_string(text.size()) + " bytes");
}

Result<std::string> Tokenizer::decode(std::span<const int64_t> ids, bool skip_special) const try {
  return impl_->decode(ids, skip_special, text::DecodeMode::kFinal);
} catch (const std::bad_alloc&) {
  return Status(Code::kResourceLimit,
                "no memory for the text of " + std::to_string(ids.size()) + " tokens");
}

int64_t Tokenizer::vocab_size() const {
  return std::max(impl_->model->vocab_size(), impl_->added.vocab().size());
}

std::optional<std::string> Tokenizer::id_to_token(int64_t id) const {
  const auto token = impl_->token_of(id);
  return token ? std::optional<std::string>(*token) : std::nullopt;
}

std::optional<int64_t> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->id_of(token);
}
bool Tokenizer::is_special(int64_t id) const { return impl_->added.is_special(id); }
std::optional<int64_t> Tokenizer::bos_id() const { return impl_->bos_id; }
const std::vector<int64_t>& Tokenizer::eos_ids() const { return impl_->eos_ids; }
const std::string& Tokenizer::description() const { return impl_->description; }

}  // namespace sprun
