// Ids that are bytes: the vocabulary of byte-level language models.
#pragma once

#include "runtime/text/pipeline.h"
#include "runtime/text/vocab.h"

namespace sprun::text {

// Token b is byte b, spelled <0xNN>.
class ByteModel : public TokenModel {
 public:
  ByteModel();
  Status encode(std::string_view piece, std::vector<int64_t>* ids) const override;
  std::optional<int64_t> token_to_id(std::string_view token) const override {
    return vocab_.id_of(token);
  }
  std::optional<std::string_view> id_to_token(int64_t id) const override {
    return vocab_.token_of(id);
  }
  int64_t vocab_size() const override { return vocab_.size(); }
  std::string_view name() const override { return "bytes"; }
  bool takes_bytes() const override { return true; }

 private:
  Vocab vocab_;
};

// The "model" object of tokenizer.json with type "ByteLevelIds", which has no other members.
Result<TokenModelPtr> make_byte_model(const Fields& fields, int depth);

}  // namespace sprun::text
