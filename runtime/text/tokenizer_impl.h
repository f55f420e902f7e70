// What a Tokenizer is made of, and the readers of each kind of file.
#pragma once

#include <string>
#include <vector>

#include "runtime/text/added_tokens.h"
#include "runtime/text/pipeline.h"
#include "sprun/tokenizer.h"

namespace sprun {

struct Tokenizer::Impl {
  text::AddedTokens added;
  text::NormalizerPtr normalizer;       // may be null
  text::PreTokenizerPtr pre_tokenizer;  // may be null
  text::TokenModelPtr model;
  text::Template around{std::nullopt};
  text::DecoderPtr decoder;  // null: tokens joined by spaces
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;
  std::string description;

  // Ids of the text alone. Throws std::bad_alloc.
  Status encode_text(std::string_view text, std::vector<int64_t>* ids) const;
  // Throws std::bad_alloc.
  Result<std::string> decode(std::span<const int64_t> ids, bool skip_special,
                             text::DecodeMode mode) const;
  std::optional<std::string_view> token_of(int64_t id) const;
  std::optional<int64_t> id_of(std::string_view token) const;
};

namespace text {

using ImplPtr = std::shared_ptr<Tokenizer::Impl>;

inline constexpr int64_t kMaxFileBytes = int64_t{64} << 20;

// The file as a string. kBadInput: cannot be read; kResourceLimit: larger than kMaxFileBytes.
Result<std::string> read_file(const std::string& path);
// kBadModel: not JSON, with line and column.
Result<Json> parse_json(const std::string& path);

// Each reads its format; messages name the place in the file. kBadModel, kResourceLimit.
Result<ImplPtr> load_tokenizer_json(const Json& root);
Result<ImplPtr> load_gpt2(const Json& vocab, const std::string& merges);
Result<ImplPtr> load_piece_list(const Json& pieces);
// config: tokenizer_config.json, or null.
Result<ImplPtr> load_bert_vocab(const std::string& vocab, const Json& config);
Result<ImplPtr> load_llama2c(const std::string& bytes);
ImplPtr make_bytes();

// Sets bos_id and eos_ids from the configuration files in `folder`, else from the usual names of
// special tokens. Broken configuration files are kBadModel.
Status find_special_ids(const std::string& folder, Tokenizer::Impl* impl);

}  // namespace text
}  // namespace sprun
