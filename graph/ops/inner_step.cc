#include "graph/ops/inner_step.h"

#include <utility>

namespace sprun::graph {

Result<InnerStep> InnerStep::prepare(PrepareContext& outer, Spec given) {
  InnerStep made;
  made.spec_ = std::make_unique<Spec>(std::move(given));
  Spec& spec = *made.spec_;
  spec.own.resize(spec.from.size());
  spec.node.name = outer.node().name;
  spec.node.def = find_op(spec.node.domain, spec.node.op_type, spec.node.version);
  if (spec.node.def == nullptr || spec.from.size() > kMaxInputs) {
    return Status(Code::kInternal, "no op " + spec.node.op_type + " to run inside " + outer.node().op_type);
  }
  std::vector<ConstTensorView> inputs, outputs = {spec.y};
  std::vector<Tensor> constants;
  for (size_t i = 0; i < spec.from.size(); ++i) {
    const int from = spec.from[i];
    if (!spec.own[i].empty()) {
      inputs.push_back(spec.own[i].view());
      constants.push_back(spec.own[i]);
      continue;
    }
    inputs.push_back(from >= 0 ? outer.input(from) : from == kX ? spec.x : from == kResidual ? spec.residual : ConstTensorView{});
    constants.push_back(from >= 0 ? outer.constant(from) : Tensor());
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    spec.node.inputs.push_back(inputs[i].dtype == DType::kUndefined ? kNoValue : static_cast<ValueId>(i));
  }
  spec.node.outputs = {static_cast<ValueId>(inputs.size())};
  PrepareContext ctx;
  ctx.node_ = &spec.node;
  ctx.inputs_ = inputs;
  ctx.outputs_ = outputs;
  ctx.constants_ = constants;
  ctx.max_threads_ = outer.max_threads();
  ctx.packed_ = outer.packed_;
  ctx.sparse_ = outer.sparse_;
  SPRUN_TRY(spec.node.def->prepare(ctx));
  made.state_ = std::move(ctx.state);
  made.scratch_bytes_ = ctx.scratch_bytes;
  made.kernel_ = ctx.kernel.empty() ? "plain loop" : std::move(ctx.kernel);
  made.detail_ = std::move(ctx.detail);
  made.flops_ = ctx.flops;
  for (Rejection& rejection : ctx.rejected) outer.rejected.push_back(std::move(rejection));
  for (int i : ctx.unread_inputs) {
    if (const int from = spec.from[static_cast<size_t>(i)]; from >= 0) outer.unread_inputs.push_back(from);
  }
  return made;
}

Status InnerStep::run(const RunContext& outer, const void* x, void* y, const void* residual, void* scratch) const {
  std::array<ConstTensorView, kMaxInputs> inputs;
  for (size_t i = 0; i < spec_->from.size(); ++i) {
    const int from = spec_->from[i];
    if (!spec_->own[i].empty()) {
      inputs[i] = spec_->own[i].view();
    } else if (from >= 0) {
      inputs[i] = outer.input(from);
    } else if (from == kX || from == kResidual) {
      inputs[i] = from == kX ? spec_->x : spec_->residual;
      inputs[i].data = from == kX ? x : residual;
    }
  }
  std::array<TensorView, 1> outputs = {TensorView{y, spec_->y.dtype, spec_->y.shape}};
  RunContext ctx;
  ctx.node_ = &spec_->node;
  ctx.inputs_ = std::span(inputs).first(spec_->from.size());
  ctx.outputs_ = outputs;
  ctx.pool_ = outer.pool_;
  ctx.state_ = state_.get();
  ctx.scratch_ = scratch;
  return spec_->node.def->run(ctx);
}

}  // namespace sprun::graph
