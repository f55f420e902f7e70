// The text of `sprun explain`.
#include <fmt/format.h>

#include <iterator>

#include "graph/ops/ffn_density.h"
#include "runtime/plan/plan.h"

namespace sprun {

namespace {

std::string shape_of(const Plan& plan, graph::ValueId v) {
  const ConstTensorView type = plan.type_of(v);
  return type.dtype == DType::kUndefined ? "?" : std::string(dtype_name(type.dtype)) + type.shape.to_string();
}

// What the runs so far have shown of the zeros of a step.
std::string measured_density(const Step& step) {
  const auto* state = dynamic_cast<const graph::SparseActivationState*>(step.state.get());
  if (state == nullptr || !state->density) return "";
  const int64_t rows = state->density->counter.rows();
  if (rows == 0) return "density measured: no runs yet";
  return fmt::format("density measured: {:.1f} % over {} rows", 100 * state->density->measured(), rows);
}

void append_step(std::string& text, const Plan& plan, size_t index) {
  const Step& step = plan.steps()[index];
  const graph::Node& node = plan.graph().node(step.node);
  const std::string op = node.domain.empty() ? node.op_type : node.domain + "." + node.op_type;
  fmt::format_to(std::back_inserter(text), "step {:<4} {:<28} {:<17} {:<32} {} -> {}  {}\n", index, op,
                 step.regime.empty() ? "-" : step.regime, step.kernel.empty() ? "plain loop" : step.kernel,
                 node.inputs.empty() ? "" : shape_of(plan, node.inputs[0]),
                 node.outputs.empty() ? "" : shape_of(plan, node.outputs[0]), node.name);
  if (step.dynamic) text += "           shapes are only known when running: outputs are allocated on the heap\n";
  if (!step.detail.empty()) text += "           " + step.detail + "\n";
  if (const std::string density = measured_density(step); !density.empty()) text += "           " + density + "\n";
  for (const graph::Rejection& rejection : step.rejected) {
    fmt::format_to(std::back_inserter(text), "           not {:<28} {}\n", rejection.kernel, rejection.reason);
  }
}

}  // namespace

std::string Plan::explain() const {
  std::string text;
  for (size_t i = 0; i < steps_.size(); ++i) append_step(text, *this, i);
  fmt::format_to(std::back_inserter(text), "arena {} bytes, scratch {} bytes\n", arena_bytes_, scratch_bytes_);
  for (const graph::PassRecord& pass : passes_) {
    fmt::format_to(std::back_inserter(text), "pass {:<28} {:<5} {:>8.2f} ms  nodes {:>5} -> {:<5} {}\n", pass.name,
                   pass.stage == graph::PassStage::kLoad ? "load" : "plan", pass.milliseconds, pass.nodes_before,
                   pass.nodes_after,
                   pass.disabled        ? "disabled"
                   : pass.rewrites == 0 ? "unchanged"
                                        : fmt::format("{} rewrites", pass.rewrites));
  }
  for (const std::string& note : notes_) text += "note " + note + "\n";
  return text;
}

}  // namespace sprun
