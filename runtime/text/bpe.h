// Byte-pair encoding: a piece starts as characters; the neighbours with the best merge join until
// none can.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/text/flat_map.h"
#include "runtime/text/pipeline.h"
#include "runtime/text/vocab.h"

namespace sprun::text {

struct BpeOptions {
  std::string unk_token;          // "": characters that cannot be expressed vanish
  std::string continuing_prefix;  // before every character but the first, as in the vocabulary
  std::string end_suffix;         // behind the last character
  bool fuse_unk = false;          // neighbouring unknown characters become one token
  bool byte_fallback =
      false;  // unknown characters become <0xNN> tokens where the vocabulary has them all
  bool ignore_merges = false;  // a piece that is a token needs no merges
};

// left and right join to result; of two merges the one with the smaller rank comes first, then the
// one further left.
struct Merge {
  int64_t left, right, result;
  uint32_t rank;
};

class BpeModel : public TokenModel {
 public:
  // Of a pair with two merges the last counts. kBadModel: unk_token is not in the vocabulary.
  // Precondition: the ids of merges are.
  static Result<TokenModelPtr> create(Vocab vocab, const std::vector<Merge>& merges,
                                      BpeOptions options);

  // O(n log n) in the characters of the piece.
  Status encode(std::string_view piece, std::vector<int64_t>* ids) const override;
  std::optional<int64_t> token_to_id(std::string_view token) const override {
    return vocab_.id_of(token);
  }
  std::optional<std::string_view> id_to_token(int64_t id) const override {
    return vocab_.token_of(id);
  }
  int64_t vocab_size() const override { return vocab_.size(); }
  std::string_view name() const override { return "BPE"; }
  std::optional<int64_t> unk_id() const override { return unk_id_; }

 private:
  BpeModel(Vocab vocab, BpeOptions options)
      : vocab_(std::move(vocab)), options_(std::move(options)) {}
  std::vector<int64_t> characters(std::string_view piece) const;
  bool append_bytes(std::string_view character, std::vector<int64_t>* ids) const;
  void merge(std::vector<int64_t>* ids) const;

  Vocab vocab_;
  BpeOptions options_;
  FlatMap merges_;  // pair of ids -> rank and result
  std::optional<int64_t> unk_id_;
  std::vector<int64_t> byte_ids_;  // 256 ids, -1 where there is none; empty without byte_fallback
};

// The merge of two token strings: finds the three ids. kBadModel: one of them is not in the
// vocabulary.
Result<Merge> named_merge(const Vocab& vocab, const std::string& continuing_prefix,
                          std::string_view left, std::string_view right, uint32_t rank);

// The "model" object of tokenizer.json with type "BPE".
Result<TokenModelPtr> make_bpe(const Fields& fields, int depth);

}  // namespace sprun::text
