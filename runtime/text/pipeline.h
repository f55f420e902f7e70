// The stages of a tokenizer, as tokenizer.json names them, and how each is made from the file.
//
//   text -> added tokens -> Normalizer -> PreTokenizer -> TokenModel -> PostProcessor -> ids ->
//   Decoder -> text
//
// All are immutable after making and thread-safe. Texts are valid UTF-8 unless the model works on
// bytes. Functions may throw std::bad_alloc; the public functions catch it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/text/json_fields.h"
#include "sprun/status.h"

namespace sprun::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual Status apply(std::string* text) const = 0;
};

// A part of the text that the model sees alone.
struct Piece {
  std::string text;
  bool at_start;  // begins where the text does
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual Status apply(std::vector<Piece>* pieces) const = 0;
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  // Appends the ids of one piece, which is not empty.
  virtual Status encode(std::string_view piece, std::vector<int64_t>* ids) const = 0;
  virtual std::optional<int64_t> token_to_id(std::string_view token) const = 0;
  virtual std::optional<std::string_view> id_to_token(int64_t id) const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual std::string_view name() const = 0;
  virtual std::optional<int64_t> unk_id() const { return std::nullopt; }
  // Pieces are bytes rather than UTF-8.
  virtual bool takes_bytes() const { return false; }
};

// Ids around a text; nullopt is the place of the text's own.
using Template = std::vector<std::optional<int64_t>>;

// kFinal: broken bytes become U+FFFD where the stage says so. kRaw: they stay, since the rest may
// come later.
enum class DecodeMode { kFinal, kRaw };

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Turns token strings into parts of the text, in place.
  virtual Status apply(std::vector<std::string>* tokens, DecodeMode mode) const = 0;
};

using NormalizerPtr = std::shared_ptr<const Normalizer>;
using PreTokenizerPtr = std::shared_ptr<const PreTokenizer>;
using TokenModelPtr = std::shared_ptr<const TokenModel>;
using DecoderPtr = std::shared_ptr<const Decoder>;

// Each makes a stage from its object in tokenizer.json; place is where the object stands.
// kBadModel.
Result<NormalizerPtr> make_normalizer(const Json& value, const std::string& place);
Result<PreTokenizerPtr> make_pre_tokenizer(const Json& value, const std::string& place);
Result<TokenModelPtr> make_model(const Json& value, const std::string& place);
Result<Template> make_template(const Json& value, const std::string& place);
Result<DecoderPtr> make_decoder(const Json& value, const std::string& place);

}  // namespace sprun::text
