// Generator: the token loop of a session. Keeps its decoder, with plans and cache memory, from call to call.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "runtime/generate/token_decoder.h"

namespace sprun {

class Generator {
 public:
  // kUsage if the model is no decoder, with the reason.
  static Result<std::unique_ptr<Generator>> create(const Model& model, const DecoderEnv& env);
  // Session::generate.
  Result<GenerateResult> run(std::span<const int64_t> prompt, const GenerateOptions& options, const TokenSink& sink);

 private:
  Generator(DecoderIo io, const DecoderEnv& env) : io_(std::move(io)), env_(env) {}
  Status check(std::span<const int64_t> prompt, const GenerateOptions& options) const;
  // The decoder for a sequence of at most `capacity` tokens, empty.
  Status open(int64_t capacity, const GenerateOptions& options);
  Result<ConstTensorView> prefill(std::span<const int64_t> prompt, const GenerateOptions& options);
  // Picks tokens from `logits` on until something ends the generation.
  Status decode(ConstTensorView logits, std::span<const int64_t> prompt, const GenerateOptions& options, const TokenSink& sink,
                GenerateResult& result);

  DecoderIo io_;
  DecoderEnv env_;
  std::unique_ptr<TokenDecoder> decoder_;
  std::string why_not_cached_;
};

}  // namespace sprun
