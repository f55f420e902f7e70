// BodyRunner: runs the subgraphs of one If, Loop or Scan step. Keeps one executor per combination of input shapes, so
// that a loop whose shapes do not change plans its body once.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/ops/op.h"
#include "runtime/session/executor.h"

namespace sprun {

class Executor::BodyRunner : public graph::SubgraphRunner {
 public:
  BodyRunner(const graph::Node& node, const ExecutionEnv& env) : node_(node), env_(env) {}

  // Stop token and deadline of the run that follows; must outlive it.
  void set_options(const RunOptions* options) { options_ = options; }

  Result<std::vector<Tensor>> run(std::string_view attr, std::span<const ConstTensorView> inputs) override;

 private:
  Result<Executor*> executor_for(std::string_view attr, std::span<const ConstTensorView> inputs);

  const graph::Node& node_;
  ExecutionEnv env_;
  const RunOptions* options_ = nullptr;
  std::map<std::string, std::unique_ptr<Executor>> executors_;
};

}  // namespace sprun
