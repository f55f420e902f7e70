// Session: one user's working memory for running a Model.
//
//   auto session = sprun::Session::create(model, {.num_threads = 2}).value();
//   session.bind_input("input_ids", {ids.data(), sprun::DType::kS64, {1, 128}}).value();
//   session.run().value();
//   sprun::ConstTensorView logits = session.output("logits").value();   // valid until the next run
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "sprun/export.h"
#include "sprun/generate.h"
#include "sprun/model.h"
#include "sprun/task_arena.h"
#include "sprun/tensor.h"

namespace sprun {

struct SessionOptions {
  // 0: every core the process may use, which is also the most there can be; 1: only the calling thread.
  int num_threads = 0;
  // Where the session does all its work, instead of an arena of its own: as many threads as the arena has. Loops of a
  // session do not take up other work of the arena while they wait. num_threads must be 0.
  TaskArena arena = {};
};

struct RunOptions {
  std::stop_token stop = {};                                           // checked between steps
  std::optional<std::chrono::steady_clock::time_point> deadline = {};  // checked between steps
};

// Time and work of one step of the last profiled run.
struct StepProfile {
  std::string name, op, kernel, regime, shape;
  double start_us = 0, duration_us = 0;  // start counts from the beginning of the run
  double flops = 0, bytes = 0;           // work and memory traffic that the step needs at least
};

// A feed-forward layer whose zeros are known to the library: how many of its neurons were active.
struct FfnDensity {
  std::string name;      // of the node
  std::string pattern;   // "ReLU FFN"
  double expected = -1;  // part of the neurons, from the model's constants; negative: not known
  double measured = -1;  // mean over the rows counted; negative: none yet
  int64_t rows = 0;      // counted: all rows of small runs, every eighth of large ones where counting costs time
};

// Where the time of a profiled generate() went.
struct GenerateProfile {
  struct Phase {
    int64_t tokens = 0, runs = 0;    // a run of the plan takes one token or more
    std::vector<StepProfile> steps;  // in order of execution; time, work and traffic of all runs added, shape of the last
    std::vector<FfnDensity> ffn;     // of this phase; other sessions of the model that run meanwhile count too
  };
  Phase prefill, decode;
};

// Not thread-safe: one thread at a time. Many sessions may share a Model and run at once.
class SPRUN_API Session {
 public:
  static Result<Session> create(std::shared_ptr<const Model> model, const SessionOptions& options = {});
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();

  const Model& model() const;
  int num_threads() const;

  // Reads the input from the caller's memory at each run, without a copy. The memory must stay valid and unchanged
  // during run(). kBadInput: unknown name, wrong dtype, rank or fixed size, data not aligned to its element size.
  Status bind_input(std::string_view name, const ConstTensorView& view);
  // Writes the output into the caller's memory. The shape is checked at run(): kBadInput if it differs.
  Status bind_output(std::string_view name, const TensorView& view);
  void clear_bindings();

  // Runs the model on the bound inputs. After the first run with the same input shapes nothing is allocated.
  // kBadInput: missing input, shapes that do not fit, bad index values; kCancelled: stop or deadline.
  Status run(const RunOptions& options = {});
  // The output of the last run; valid until the next run or rebinding. kUsage: unknown name or no run yet.
  Result<ConstTensorView> output(std::string_view name) const;

  // Convenience: binds all inputs, runs and copies the outputs.
  Result<std::vector<NamedTensor>> run(std::span<const NamedTensor> inputs, const RunOptions& options = {});

  // Continues the token sequence `prompt` with a decoder model: inputs input_ids and optionally attention_mask,
  // position_ids and past states, outputs logits and present states, named as exporters do. Each new token goes to `sink`
  // (may be empty) on the thread of the call. Bindings of inputs and outputs are neither used nor changed.
  // kBadModel: the model is no decoder (says why); kUsage: bad options; kBadInput: token outside the vocabulary, sequence
  // longer than the model's context, logits that are NaN; kCancelled: stop or deadline, at the latest after the current step.
  Result<GenerateResult> generate(std::span<const int64_t> prompt, const GenerateOptions& options = {},
                                  const TokenSink& sink = {});

  // How generate() with these options would run a step of one token: how the past is kept and why, then as explain().
  Result<std::string> explain_generate(const GenerateOptions& options = {});

  // Bytes of working memory for the shapes of the last run.
  int64_t arena_bytes() const;

  // When on, each run and each generate() records the time of every step (costs two clock reads a step).
  void set_profiling(bool on);
  const std::vector<StepProfile>& profile() const;
  // Of the last generate() with profiling on, up to where it failed if it did; empty before.
  const GenerateProfile& generate_profile() const;

  // The sparse feed-forward layers of the model that were planned so far, in order of execution. All sessions of a model,
  // all shapes and generate() count together.
  std::vector<FfnDensity> ffn_density() const;

  // How the shapes of the currently bound inputs would be executed: one block of text per step with its kernel, shape
  // and the kernels not taken with the reason; then the passes and how often each fired. Does not run.
  Result<std::string> explain();

 private:
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sprun
