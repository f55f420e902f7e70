// Tokenizer: text to token ids and back, from the files that lie beside a model.
//
//   auto tokenizer = sprun::Tokenizer::load("model_folder").value();
//   std::vector<int64_t> ids = tokenizer.encode("Once upon a time").value();
//   sprun::StreamDecoder stream(tokenizer, ids);                  // text of what the model adds
//   for (int64_t id : generated) std::cout << stream.push(id).value();
//   std::cout << stream.flush();
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/export.h"
#include "sprun/status.h"

namespace sprun {

// Immutable and cheap to copy (copies share the tables). Thread-safe: every function is const.
class SPRUN_API Tokenizer {
 public:
  // `path` is a file or a folder; in a folder the first of these is taken:
  //   tokenizer.json             Hugging Face: BPE, WordPiece, Unigram, WordLevel; model type
  //   "ByteLevelIds": bytes vocab.json and merges.txt  GPT-2: byte-level BPE vocab.json alone a
  //   list of [piece, score]: Unigram, NFKC, U+2581 for spaces vocab.txt                  BERT:
  //   WordPiece, one token a line tokenizer.bin or tok*.bin  llama2.c: scored pieces, byte fallback
  // tokenizer_config.json and generation_config.json beside it name special tokens. The word
  // "bytes", where no such file exists, is bytes(). Truncation and padding settings of the file are
  // not applied. kBadInput: nothing of this kind there, unreadable; kBadModel: broken or
  // unsupported, with the place in the file; kResourceLimit: file above 64 MiB, ids above 4194303,
  // or no memory.
  static Result<Tokenizer> load(const std::string& path);
  // Ids 0 to 255 are the bytes of the text; no special tokens.
  static Tokenizer bytes();

  // Token ids of `text`. Written special tokens ("</s>") in the text become their ids. Bytes that
  // are not UTF-8 count as U+FFFD, except where ids are bytes. add_special: also what the model
  // expects around a text ([CLS], <s>, ...). Characters that the vocabulary cannot express become
  // its unknown token, or vanish where it has none (BPE). kBadInput: they cannot be expressed and
  // the model type demands an unknown token; kResourceLimit: a pattern of the file needs too long
  // on this text, or no memory.
  Result<std::vector<int64_t>> encode(std::string_view text, bool add_special = true) const;

  // Text of `ids`, always UTF-8: broken sequences become U+FFFD. skip_special leaves special tokens
  // out. kBadInput: an id that is no token, with its position.
  Result<std::string> decode(std::span<const int64_t> ids, bool skip_special = true) const;

  // One above the largest id; ids between may be unused.
  int64_t vocab_size() const;
  // The token as the file spells it (for byte-level BPE with its stand-ins for bytes); none for
  // unused ids.
  std::optional<std::string> id_to_token(int64_t id) const;
  std::optional<int64_t> token_to_id(std::string_view token) const;
  bool is_special(int64_t id) const;

  // Begin of sequence, and every id that ends one; empty if the files do not say and no usual name
  // is there.
  std::optional<int64_t> bos_id() const;
  const std::vector<int64_t>& eos_ids() const;
  // The model type and the file: "BPE from .../tokenizer.json".
  const std::string& description() const;

  struct Impl;  // not installed
  const Impl& impl() const { return *impl_; }
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<const Impl> impl_;
};

// Text of tokens as they come. A character spread over several tokens is held back until it is
// complete; what was emitted is never changed. All parts together are decode() of the ids, apart
// from how many U+FFFD stand for broken UTF-8. Not thread-safe.
class SPRUN_API StreamDecoder {
 public:
  // context: ids before the first one pushed (the prompt); decides whether the text begins with a
  // space.
  explicit StreamDecoder(Tokenizer tokenizer, std::span<const int64_t> context = {},
                         bool skip_special = true);

  // Text that `id` completes, possibly empty. kBadInput: not a token; the state is unchanged.
  Result<std::string> push(int64_t id);
  // What is held back, as U+FFFD: call once at the end.
  std::string flush();

 private:
  Tokenizer tokenizer_;
  std::vector<int64_t> window_;  // the last tokens that have text
  std::string pending_;          // begin of a character
  bool skip_special_;
};

}  // namespace sprun
