// Unigram (SentencePiece): of all ways to cut a piece into tokens the one with the largest sum of
// scores.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/text/byte_trie.h"
#include "runtime/text/pipeline.h"
#include "runtime/text/vocab.h"

namespace sprun::text {

class UnigramModel : public TokenModel {
 public:
  // scores[i] belongs to id i. unk_id: for characters no token covers; byte_fallback: <0xNN> tokens
  // for them if the vocabulary has them. Precondition: unk_id, if any, is below scores.size().
  UnigramModel(Vocab vocab, std::vector<double> scores, std::optional<int64_t> unk_id,
               bool byte_fallback);

  // Viterbi; O(bytes * longest token). Neighbouring unknown characters become one unknown token.
  Status encode(std::string_view piece, std::vector<int64_t>* ids) const override;
  std::optional<int64_t> token_to_id(std::string_view token) const override {
    return vocab_.id_of(token);
  }
  std::optional<std::string_view> id_to_token(int64_t id) const override {
    return vocab_.token_of(id);
  }
  int64_t vocab_size() const override { return vocab_.size(); }
  std::string_view name() const override { return "Unigram"; }
  std::optional<int64_t> unk_id() const override { return unk_id_; }

 private:
  struct Best;
  std::vector<Best> best_ways(std::string_view piece) const;
  Status append_unknown(std::string_view part, std::vector<int64_t>* ids) const;

  Vocab vocab_;
  std::vector<double> scores_;
  ByteTrie trie_;
  double unk_score_;
  std::optional<int64_t> unk_id_;
  bool byte_fallback_;
};

// A model from a list of [piece, score]; a score of null (some writers cannot express theirs)
// counts as 0.
Result<TokenModelPtr> unigram_from_list(const Json& list, const std::string& place,
                                        std::optional<int64_t> unk_id, bool byte_fallback);
// The "model" object of tokenizer.json with type "Unigram".
Result<TokenModelPtr> make_unigram(const Fields& fields, int depth);

}  // namespace sprun::text
