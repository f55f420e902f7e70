// WordPiece: the longest token at each place of a word, from the left; a word that cannot be
// covered is unknown.
#pragma once

#include <string>

#include "runtime/text/pipeline.h"
#include "runtime/text/vocab.h"

namespace sprun::text {

struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string continuing_prefix = "##";  // of tokens that do not begin a word
  int64_t max_chars = 100;               // longer words are unknown
};

class WordPieceModel : public TokenModel {
 public:
  WordPieceModel(Vocab vocab, WordPieceOptions options);
  Status encode(std::string_view piece, std::vector<int64_t>* ids) const override;
  std::optional<int64_t> token_to_id(std::string_view token) const override {
    return vocab_.id_of(token);
  }
  std::optional<std::string_view> id_to_token(int64_t id) const override {
    return vocab_.token_of(id);
  }
  int64_t vocab_size() const override { return vocab_.size(); }
  std::string_view name() const override { return "WordPiece"; }
  std::optional<int64_t> unk_id() const override { return unk_id_; }

 private:
  bool cover(std::string_view word, std::vector<int64_t>* ids) const;

  Vocab vocab_;
  WordPieceOptions options_;
  std::optional<int64_t> unk_id_;
};

// The "model" objects of tokenizer.json with types "WordPiece" and "WordLevel" (a word is one token
// or unknown).
Result<TokenModelPtr> make_word_piece(const Fields& fields, int depth);
Result<TokenModelPtr> make_word_level(const Fields& fields, int depth);

}  // namespace sprun::text
