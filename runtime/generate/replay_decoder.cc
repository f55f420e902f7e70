// Runs any decoder graph as its file says: the states of a step are the outputs of the step before, a graph without states
// gets the whole sequence again. Every length is a shape of its own, so each step plans anew; weights are packed once.
#include <limits>
#include <utility>

#include "runtime/generate/token_decoder.h"

namespace sprun {

namespace {

class ReplayDecoder : public TokenDecoder {
 public:
  ReplayDecoder(const DecoderIo& io, const DecoderEnv& env) : io_(io), env_(env) {}

  Result<ConstTensorView> append(std::span<const int64_t> ids, const RunOptions& options) override {
    if (io_.states.empty()) {
      sequence_.insert(sequence_.end(), ids.begin(), ids.end());
      length_ = 0;
      return step(sequence_, options);
    }
    if (io_.fixed_tokens < 0) return step(ids, options);
    // The file fixes how many tokens a step takes: only one at a time makes sense.
    for (size_t i = 0; i + 1 < ids.size(); ++i) SPRUN_TRY(step(ids.subspan(i, 1), options).status());
    return step(ids.last(1), options);
  }

  Status prepare(int64_t) override { return {}; }

  void reset() override {
    length_ = 0;
    sequence_.clear();
    states_.clear();
  }
  int64_t capacity() const override { return std::numeric_limits<int64_t>::max(); }

  std::string explain() const override {
    return executor_ ? executor_->plan().explain() : "each step plans for its own length\n";
  }

  int64_t kv_bytes() const override {
    int64_t total = 0;
    for (const Tensor& state : states_) total += state.size_bytes();
    return total;
  }

 private:
  Result<ConstTensorView> step(std::span<const int64_t> ids, const RunOptions& options) {
    SPRUN_ASSIGN(const StepInputs small, StepInputs::make(io_, length_, ids));
    if (states_.empty()) SPRUN_TRY(start_states());
    std::vector<ConstTensorView> inputs = small.views();
    for (size_t i = 0; i < io_.states.size(); ++i) {
      inputs[static_cast<size_t>(io_.states[i].input)] = states_[i].view();
    }
    SPRUN_ASSIGN(auto plan, env_.model->plan_for(inputs, *env_.pool));
    SPRUN_ASSIGN(executor_, Executor::create(std::move(plan), env_.execution));
    const std::vector<TensorView> outputs(env_.model->outputs.size());
    SPRUN_TRY(executor_->run(inputs, outputs, options, times_ ? &times_->latest() : nullptr));
    if (times_) times_->add();
    for (size_t i = 0; i < io_.states.size(); ++i) {
      SPRUN_ASSIGN(states_[i], executor_->take_output(io_.states[i].output));
    }
    length_ += static_cast<int64_t>(ids.size());
    return last_logits(executor_->output(io_.logits));
  }

  Status start_states() {
    for (const StateSpec& spec : io_.states) {
      SPRUN_ASSIGN(Tensor state, Tensor::zeros(spec.dtype, spec.shape_at(0)));
      states_.push_back(std::move(state));
    }
    return {};
  }

  DecoderIo io_;
  DecoderEnv env_;
  std::vector<int64_t> sequence_;  // graphs without states
  std::vector<Tensor> states_;
  std::unique_ptr<Executor> executor_;  // of the last step: owns the logits
};

}  // namespace

Result<ConstTensorView> last_logits(const ConstTensorView& logits) {
  const int rank = logits.shape.rank();
  const bool fits = (rank == 2 || (rank == 3 && logits.shape[0] == 1)) && logits.num_elements() > 0;
  if (!fits || logits.dtype != DType::kF32) {
    return Status(Code::kBadInput, "logits are " + std::string(dtype_name(logits.dtype)) + logits.shape.to_string() +
                                       ", expected float32 [1, tokens, vocabulary]");
  }
  const int64_t width = logits.shape.back();
  return ConstTensorView{logits.as<float>() + logits.num_elements() - width, DType::kF32, Shape{width}};
}

std::unique_ptr<TokenDecoder> make_replay_decoder(const DecoderIo& io, const DecoderEnv& env) {
  return std::make_unique<ReplayDecoder>(io, env);
}

}  // namespace sprun
