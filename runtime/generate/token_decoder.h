// TokenDecoder: a decoder graph and the past of one sequence. Two kinds: the cached one keeps keys and values in place and
// runs one plan for every token; the replay one runs any decoder graph, planning for each length.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "runtime/generate/decoder_io.h"
#include "runtime/generate/step_times.h"
#include "runtime/session/executor.h"
#include "runtime/session/model_impl.h"
#include "sprun/generate.h"

namespace sprun {

class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  // Appends ids to the sequence; returns the logits after the last one, f32 [vocabulary], valid until the next call.
  // kBadInput: an id outside the vocabulary, a sequence longer than the model takes; kCancelled.
  virtual Result<ConstTensorView> append(std::span<const int64_t> ids, const RunOptions& options) = 0;
  // Makes ready what append() of this many ids needs, so that its time is the model's alone.
  virtual Status prepare(int64_t tokens) = 0;
  // Bytes of the keys and values of the sequence so far, and of the memory taken for them.
  virtual int64_t kv_bytes() const = 0;
  virtual int64_t kv_committed_bytes() const { return kv_bytes(); }
  // Forgets the sequence and gives its memory back; plans stay.
  virtual void reset() = 0;
  // Most tokens of a sequence.
  virtual int64_t capacity() const = 0;
  // How a step of one token runs: kernels, reasons, passes.
  virtual std::string explain() const = 0;
  int64_t length() const { return length_; }
  // Adds the step times of all runs from now on to `times`; null: none are measured.
  void record(StepTimes* times) { times_ = times; }

 protected:
  StepTimes* times_ = nullptr;
  int64_t length_ = 0;
};

struct DecoderEnv {
  const Model::Impl* model = nullptr;
  ThreadPool* pool = nullptr;
  ExecutionEnv execution;
};

// The row of the last token in logits [1, T, V] or [T, V]. kBadInput for other shapes and types.
Result<ConstTensorView> last_logits(const ConstTensorView& logits);

std::unique_ptr<TokenDecoder> make_replay_decoder(const DecoderIo& io, const DecoderEnv& env);
// kUsage with the reason where the graph does not allow it; kBadInput if the model does not take `capacity` tokens.
Result<std::unique_ptr<TokenDecoder>> make_cached_decoder(const DecoderIo& io, const DecoderEnv& env, int64_t capacity,
                                                          KvType kv_type);

}  // namespace sprun
