// Executor: runs one Plan with its own memory. A session has one per plan it uses; If, Loop and Scan have one per body.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/packed_cache.h"
#include "runtime/plan/plan.h"
#include "sprun/session.h"

namespace sprun {

// What executors of one session share.
struct ExecutionEnv {
  ThreadPool* pool = nullptr;
  PackedCache* packed = nullptr;
  Precision precision = Precision::kF32;
  SparseMode sparse = SparseMode::kAuto;
};

class Executor {
 public:
  static Result<std::unique_ptr<Executor>> create(std::shared_ptr<const Plan> plan, const ExecutionEnv& env);
  ~Executor();

  // inputs: by position, with the shapes of the plan. outputs: memory to write to, data null for "use your own".
  // Fills *profile with one entry per step when it is not null.
  Status run(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs, const RunOptions& options,
             std::vector<StepProfile>* profile);
  // Output k of the last run.
  const ConstTensorView& output(int k) const { return results_[static_cast<size_t>(k)]; }
  // The same as a Tensor that stays valid after the next run (moved out where possible, else copied).
  Result<Tensor> take_output(int k);

  const Plan& plan() const { return *plan_; }
  int64_t memory_bytes() const { return plan_->arena_bytes() + plan_->scratch_bytes(); }

 private:
  class BodyRunner;
  // Where a view of a step gets its pointer from at the beginning of a run.
  struct Patch {
    size_t view;
    int64_t index;  // of the input or output
  };

  Executor(std::shared_ptr<const Plan> plan, const ExecutionEnv& env);
  Status bind();
  void bind_view(graph::ValueId v, size_t slot, bool is_output);
  Status bind_outputs(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs);
  Status run_step(size_t s);
  Status run_dynamic(size_t s);
  ConstTensorView current_view(graph::ValueId v) const;
  Status finish_outputs();
  void record(size_t s, double start_us, double end_us, std::vector<StepProfile>& profile) const;

  std::shared_ptr<const Plan> plan_;
  ExecutionEnv env_;
  PackedBlob arena_, scratch_;
  std::vector<ConstTensorView> in_views_;   // of all steps, one after the other
  std::vector<TensorView> out_views_;
  std::vector<graph::RunContext> contexts_;  // one per step
  std::vector<Patch> in_from_input_, in_from_output_, out_from_output_;
  std::vector<Tensor> dynamic_;              // by value
  std::vector<ConstTensorView> inputs_;      // of the current run
  std::vector<TensorView> output_memory_;    // of the current run, by output
  std::vector<TensorView> requested_;        // what the caller bound, by output
  std::vector<Tensor> own_outputs_;          // memory for outputs that the caller did not bind
  std::vector<ConstTensorView> results_;
  std::vector<std::unique_ptr<BodyRunner>> bodies_;  // by step; null for steps without subgraphs
};

}  // namespace sprun
