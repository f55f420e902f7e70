#include "runtime/session/executor.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "graph/ops/evaluate.h"
#include "runtime/base/thread_pool.h"
#include "runtime/session/body_runner.h"

namespace sprun {

using graph::kNoValue;
using graph::Node;
using graph::ValueId;
using Kind = Location::Kind;

Executor::Executor(std::shared_ptr<const Plan> plan, const ExecutionEnv& env) : plan_(std::move(plan)), env_(env) {}
Executor::~Executor() = default;

Result<std::unique_ptr<Executor>> Executor::create(std::shared_ptr<const Plan> plan, const ExecutionEnv& env) {
  std::unique_ptr<Executor> executor(new Executor(std::move(plan), env));
  SPRUN_TRY(executor->bind());
  return executor;
}

Status Executor::bind() {
  SPRUN_ASSIGN(arena_, allocate_blob(plan_->arena_bytes()));
  SPRUN_ASSIGN(scratch_, allocate_blob(plan_->scratch_bytes()));
  const graph::Graph& graph = plan_->graph();
  size_t num_in = 0, num_out = 0;
  for (const Step& step : plan_->steps()) {
    num_in += graph.node(step.node).inputs.size();
    num_out += graph.node(step.node).outputs.size();
  }
  in_views_.resize(num_in);
  out_views_.resize(num_out);
  contexts_.resize(plan_->steps().size());
  bodies_.resize(plan_->steps().size());
  dynamic_.resize(static_cast<size_t>(graph.num_values()));
  const size_t num_outputs = graph.outputs().size();
  output_memory_.resize(num_outputs);
  requested_.resize(num_outputs);
  own_outputs_.resize(num_outputs);
  results_.resize(num_outputs);
  size_t in_at = 0, out_at = 0;
  for (size_t s = 0; s < contexts_.size(); ++s) {
    const Step& step = plan_->steps()[s];
    const Node& node = graph.node(step.node);
    graph::RunContext& ctx = contexts_[s];
    ctx.node_ = &node;
    ctx.pool_ = env_.pool;
    ctx.state_ = step.state.get();
    ctx.scratch_ = scratch_.data.get();
    ctx.inputs_ = std::span(in_views_).subspan(in_at, node.inputs.size());
    ctx.outputs_ = std::span(out_views_).subspan(out_at, node.outputs.size());
    if (node.def->flags & graph::kSubgraphs) {
      bodies_[s] = std::make_unique<BodyRunner>(node, env_);
      ctx.subgraphs_ = bodies_[s].get();
    }
    for (ValueId v : node.inputs) bind_view(v, in_at++, false);
    for (ValueId v : node.outputs) bind_view(v, out_at++, true);
  }
  return {};
}

void Executor::bind_view(ValueId v, size_t slot, bool is_output) {
  if (v == kNoValue) return;
  const Location& location = plan_->location(v);
  if (location.kind == Kind::kDynamic) return;
  const ConstTensorView type = plan_->type_of(v);
  void* data = nullptr;
  if (location.kind == Kind::kArena) data = static_cast<char*>(arena_.data.get()) + location.index;
  if (is_output) {
    out_views_[slot] = {data, type.dtype, type.shape};
    if (location.kind == Kind::kOutput) out_from_output_.push_back({slot, location.index});
    return;
  }
  const void* constant = nullptr;
  if (location.kind == Kind::kConstant) constant = plan_->graph().value(static_cast<ValueId>(location.index)).constant.data();
  in_views_[slot] = {constant ? constant : data, type.dtype, type.shape};
  if (location.kind == Kind::kInput) in_from_input_.push_back({slot, location.index});
  if (location.kind == Kind::kOutput) in_from_output_.push_back({slot, location.index});
}

Status Executor::bind_outputs(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs) {
  inputs_.assign(inputs.begin(), inputs.end());
  for (const Patch& patch : in_from_input_) {
    in_views_[patch.view].data = inputs[static_cast<size_t>(patch.index)].data;
  }
  for (size_t k = 0; k < output_memory_.size(); ++k) {
    const ConstTensorView type = plan_->type_of(plan_->graph().outputs()[k]);
    requested_[k] = k < outputs.size() ? outputs[k] : TensorView{};
    if (type.dtype == DType::kUndefined) continue;  // dynamic
    if (requested_[k].data != nullptr) {
      if (requested_[k].dtype != type.dtype || requested_[k].shape != type.shape) {
        return {Code::kBadInput, "output " + std::to_string(k) + " is bound as " +
                                     std::string(dtype_name(requested_[k].dtype)) + requested_[k].shape.to_string() +
                                     ", but the model gives " + std::string(dtype_name(type.dtype)) +
                                     type.shape.to_string()};
      }
      output_memory_[k] = requested_[k];
    } else {
      if (own_outputs_[k].empty()) {
        SPRUN_ASSIGN(own_outputs_[k], Tensor::allocate(type.dtype, type.shape));
      }
      output_memory_[k] = own_outputs_[k].mutable_view();
    }
    results_[k] = output_memory_[k];
  }
  for (const Patch& patch : in_from_output_) {
    in_views_[patch.view].data = output_memory_[static_cast<size_t>(patch.index)].data;
  }
  for (const Patch& patch : out_from_output_) {
    out_views_[patch.view].data = output_memory_[static_cast<size_t>(patch.index)].data;
  }
  return {};
}

namespace {
double microseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

Status check_cancelled(const RunOptions& options) {
  if (options.stop.stop_requested()) return {Code::kCancelled, "the run was stopped"};
  if (options.deadline && std::chrono::steady_clock::now() > *options.deadline) {
    return {Code::kCancelled, "the deadline has passed"};
  }
  return {};
}
}  // namespace

Status Executor::run(std::span<const ConstTensorView> inputs, std::span<const TensorView> outputs,
                     const RunOptions& options, std::vector<StepProfile>* profile) {
  SPRUN_TRY(bind_outputs(inputs, outputs));
  const bool may_stop = options.stop.stop_possible() || options.deadline.has_value();
  if (may_stop) SPRUN_TRY(check_cancelled(options));  // a loop body may have no step of its own
  for (const auto& body : bodies_) {
    if (body) body->set_options(&options);
  }
  if (profile) profile->resize(contexts_.size());
  const auto start = std::chrono::steady_clock::now();
  double last_us = 0;
  for (size_t s = 0; s < contexts_.size(); ++s) {
    if (may_stop) SPRUN_TRY(check_cancelled(options));
    SPRUN_TRY(run_step(s));
    if (profile) {
      record(s, last_us, microseconds_since(start), *profile);
      last_us = microseconds_since(start);  // what recording took is in no step
    }
  }
  return finish_outputs();
}

Status Executor::run_step(size_t s) {
  const Step& step = plan_->steps()[s];
  if (step.dynamic) return run_dynamic(s);
  return contexts_[s].node_->def->run(contexts_[s]);
}

ConstTensorView Executor::current_view(ValueId v) const {
  if (v == kNoValue) return {};
  const Location& location = plan_->location(v);
  ConstTensorView view = plan_->type_of(v);
  switch (location.kind) {
    case Kind::kNone:
    case Kind::kConstant: break;
    case Kind::kInput: view.data = inputs_[static_cast<size_t>(location.index)].data; break;
    case Kind::kOutput: view.data = output_memory_[static_cast<size_t>(location.index)].data; break;
    case Kind::kArena: view.data = static_cast<const char*>(arena_.data.get()) + location.index; break;
    case Kind::kDynamic: view = dynamic_[static_cast<size_t>(v)].view(); break;
  }
  if (location.kind == Kind::kConstant) {
    view.data = plan_->graph().value(static_cast<ValueId>(location.index)).constant.data();
  }
  return view;
}

Status Executor::run_dynamic(size_t s) {
  const Step& step = plan_->steps()[s];
  const graph::Graph& graph = plan_->graph();
  const Node& node = graph.node(step.node);
  std::vector<ConstTensorView> inputs;
  std::vector<Tensor> constants;
  for (ValueId v : node.inputs) {
    inputs.push_back(current_view(v));
    constants.push_back(v == kNoValue ? Tensor() : graph.value(v).constant);
  }
  SPRUN_ASSIGN(std::vector<Tensor> results,
               graph::evaluate(node, inputs, {.pool = env_.pool, .packed = env_.packed, .subgraphs = bodies_[s].get(),
                                              .constants = constants}));
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (node.outputs[i] != kNoValue) dynamic_[static_cast<size_t>(node.outputs[i])] = std::move(results[i]);
  }
  for (ValueId v : step.last_uses) dynamic_[static_cast<size_t>(v)] = Tensor();
  return {};
}

Status Executor::finish_outputs() {
  for (const OutputCopy& copy : plan_->output_copies()) {
    const auto k = static_cast<size_t>(copy.output);
    const ConstTensorView from = current_view(copy.from);
    if (requested_[k].data == nullptr && plan_->location(copy.from).kind == Kind::kDynamic) {
      results_[k] = from;
      continue;
    }
    if (requested_[k].data != nullptr && (requested_[k].dtype != from.dtype || requested_[k].shape != from.shape)) {
      return {Code::kBadInput, "output " + std::to_string(k) + " is bound as " + requested_[k].shape.to_string() +
                                   ", but this run gave " + from.shape.to_string()};
    }
    const TensorView to = requested_[k].data != nullptr ? requested_[k] : output_memory_[k];
    if (from.size_bytes() > 0) std::memmove(to.data, from.data, static_cast<size_t>(from.size_bytes()));
    results_[k] = to;
  }
  return {};
}

Result<Tensor> Executor::take_output(int k) {
  const auto i = static_cast<size_t>(k);
  if (!own_outputs_[i].empty() && results_[i].data == own_outputs_[i].data()) return std::exchange(own_outputs_[i], {});
  return Tensor::copy_of(results_[i]);
}

void Executor::record(size_t s, double start_us, double end_us, std::vector<StepProfile>& profile) const {
  const Step& step = plan_->steps()[s];
  const Node& node = plan_->graph().node(step.node);
  StepProfile& entry = profile[s];
  entry.name = node.name;
  entry.op = node.domain.empty() ? node.op_type : node.domain + "." + node.op_type;
  entry.kernel = step.kernel;
  entry.regime = step.regime;
  entry.shape = node.outputs.empty() ? "" : plan_->type_of(node.outputs[0]).shape.to_string();
  entry.start_us = start_us;
  entry.duration_us = end_us - start_us;
  entry.flops = step.flops;
  entry.bytes = step.bytes;
}

}  // namespace sprun
