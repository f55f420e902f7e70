#include "runtime/session/body_runner.h"

#include "runtime/base/thread_pool.h"

namespace sprun {

namespace {
// A loop that grows a tensor has new shapes each time round; older plans are of no use then.
constexpr size_t kMaxExecutors = 8;

std::string shapes_key(std::string_view attr, std::span<const ConstTensorView> inputs) {
  std::string key(attr);
  for (const ConstTensorView& input : inputs) {
    key += ';';
    key += dtype_name(input.dtype);
    key += input.shape.to_string();
  }
  return key;
}
}  // namespace

Result<Executor*> Executor::BodyRunner::executor_for(std::string_view attr, std::span<const ConstTensorView> inputs) {
  const std::string key = shapes_key(attr, inputs);
  if (auto it = executors_.find(key); it != executors_.end()) return it->second.get();
  const auto body = node_.attrs.get_graph(attr);
  if (body == nullptr) {
    return Status(Code::kBadModel, node_.op_type + " '" + node_.name + "' has no subgraph '" + std::string(attr) + "'");
  }
  if (body->inputs().size() != inputs.size()) {
    return Status(Code::kBadModel, node_.op_type + " '" + node_.name + "': subgraph '" + std::string(attr) + "' has " +
                                       std::to_string(body->inputs().size()) + " inputs, expected " +
                                       std::to_string(inputs.size()));
  }
  if (executors_.size() >= kMaxExecutors) executors_.clear();
  SPRUN_ASSIGN(auto plan, Plan::build(*body, inputs, {.num_threads = env_.pool->num_threads(), .precision = env_.precision, .sparse = env_.sparse},
                                      *env_.pool, *env_.packed));
  SPRUN_ASSIGN(auto executor, Executor::create(std::move(plan), env_));
  return executors_.emplace(key, std::move(executor)).first->second.get();
}

Result<std::vector<Tensor>> Executor::BodyRunner::run(std::string_view attr, std::span<const ConstTensorView> inputs) {
  SPRUN_ASSIGN(Executor* executor, executor_for(attr, inputs));
  SPRUN_TRY(executor->run(inputs, {}, options_ ? *options_ : RunOptions{}, nullptr));
  std::vector<Tensor> outputs;
  for (size_t k = 0; k < executor->plan().graph().outputs().size(); ++k) {
    SPRUN_ASSIGN(Tensor output, executor->take_output(static_cast<int>(k)));
    outputs.push_back(std::move(output));
  }
  return outputs;
}

}  // namespace sprun
