// WordPiece and WordLevel.
#include "runtime/text/word_piece.h"

#include "runtime/text/json_vocab.h"
#include "runtime/text/unicode.h"

namespace sprun::text {
namespace {

Status no_unknown(std::string_view word, const std::string& unk_token) {
  return {Code::kBadInput, "the vocabulary can express neither " + shown(word) +
                               " nor the unknown token " + shown(unk_token)};
}

class WordLevelModel : public TokenModel {
 public:
  WordLevelModel(Vocab vocab, std::string unk_token)
      : vocab_(std::move(vocab)),
        unk_token_(std::move(unk_token)),
        unk_id_(vocab_.id_of(unk_token_)) {}

  Status encode(std::string_view piece, std::vector<int64_t>* ids) const override {
    const auto id = vocab_.id_of(piece);
    if (!id && !unk_id_) return no_unknown(piece, unk_token_);
    ids->push_back(id ? *id : *unk_id_);
    return {};
  }
  std::optional<int64_t> token_to_id(std::string_view token) const override {
    return vocab_.id_of(token);
  }
  std::optional<std::string_view> id_to_token(int64_t id) const override {
    return vocab_.token_of(id);
  }
  int64_t vocab_size() const override { return vocab_.size(); }
  std::string_view name() const override { return "WordLevel"; }
  std::optional<int64_t> unk_id() const override { return unk_id_; }

 private:
  Vocab vocab_;
  std::string unk_token_;
  std::optional<int64_t> unk_id_;
};

}  // namespace

WordPieceModel::WordPieceModel(Vocab vocab, WordPieceOptions options)
    : vocab_(std::move(vocab)),
      options_(std::move(options)),
      unk_id_(vocab_.id_of(options_.unk_token)) {}

bool WordPieceModel::cover(std::string_view word, std::vector<int64_t>* ids) const {
  std::string token;
  for (size_t begin = 0; begin < word.size();) {
    size_t end = word.size();
    std::optional<int64_t> id;
    for (; end > begin; end = previous_start(word, end)) {
      token = begin > 0 ? options_.continuing_prefix : "";
      token += word.substr(begin, end - begin);
      id = vocab_.id_of(token);
      if (id) break;
    }
    if (!id) return false;
    ids->push_back(*id);
    begin = end;
  }
  return true;
}

Status WordPieceModel::encode(std::string_view piece, std::vector<int64_t>* ids) const {
  const size_t before = ids->size();
  if (static_cast<int64_t>(count_chars(piece)) <= options_.max_chars && cover(piece, ids))
    return {};
  ids->resize(before);
  if (!unk_id_) return no_unknown(piece, options_.unk_token);
  ids->push_back(*unk_id_);
  return {};
}

Result<TokenModelPtr> make_word_piece(const Fields& fields, int) {
  constexpr int64_t kMostChars = 1000;  // the time for a word is quadratic
  WordPieceOptions options;
  SPRUN_ASSIGN(options.unk_token, fields.text("unk_token", options.unk_token));
  SPRUN_ASSIGN(options.continuing_prefix,
               fields.text("continuing_subword_prefix", options.continuing_prefix));
  SPRUN_ASSIGN(options.max_chars,
               fields.integer("max_input_chars_per_word", 0, kMostChars, options.max_chars));
  SPRUN_ASSIGN(Vocab vocab, read_vocab_object(fields));
  return TokenModelPtr(std::make_shared<WordPieceModel>(std::move(vocab), std::move(options)));
}

Result<TokenModelPtr> make_word_level(const Fields& fields, int) {
  SPRUN_ASSIGN(std::string unk_token, fields.text("unk_token", "<unk>"));
  SPRUN_ASSIGN(Vocab vocab, read_vocab_object(fields));
  return TokenModelPtr(std::make_shared<WordLevelModel>(std::move(vocab), std::move(unk_token)));
}

}  // namespace sprun::text
