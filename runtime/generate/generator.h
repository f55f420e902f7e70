// Generator: the token loop of a session. Keeps its decoder, with plans and cache memory, from call to call.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "runtime/generate/token_decoder.h"

namespace sprun {

class Generator {
 public:
  // kBadModel if the model is no decoder, with the reason.
  static Result<std::unique_ptr<Generator>> create(const Model& model, const DecoderEnv& env);
  // Session::generate. Measures steps only where `profile` is not null.
  Result<GenerateResult> run(std::span<const int64_t> prompt, const GenerateOptions& options, const TokenSink& sink,
                             GenerateProfile* profile);
  // Session::explain_generate.
  Result<std::string> explain(const GenerateOptions& options);

 private:
  Generator(DecoderIo io, const DecoderEnv& env) : io_(std::move(io)), env_(env) {}
  Status check(std::span<const int64_t> prompt, const GenerateOptions& options) const;
  // An empty decoder with all that the prompt and the tokens after it need.
  Status open(int64_t prompt_tokens, const GenerateOptions& options);
  Status open_cached(int64_t capacity, KvType kv_type);
  int64_t chunk_size(const GenerateOptions& options) const;
  Status prepare_prefill(int64_t tokens, const GenerateOptions& options);
  Result<ConstTensorView> prefill(std::span<const int64_t> prompt, const GenerateOptions& options);
  // Picks tokens from `logits` on until something ends the generation.
  Status decode(ConstTensorView logits, std::span<const int64_t> prompt, const GenerateOptions& options, const TokenSink& sink,
                GenerateResult& result);

  DecoderIo io_;
  DecoderEnv env_;
  std::unique_ptr<TokenDecoder> decoder_;
  KvType kv_type_ = KvType::kF32;  // of decoder_
  std::string why_not_cached_;
};

}  // namespace sprun
