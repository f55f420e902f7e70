#include "runtime/generate/step_graph.h"

#include <algorithm>
#include <cstring>

#include "graph/ops/evaluate.h"
#include "graph/passes/pass.h"
#include "runtime/base/thread_pool.h"
#include "runtime/generate/last_row.h"

namespace sprun {

using graph::Graph;
using graph::kNoValue;
using graph::NodeId;
using graph::Value;
using graph::ValueId;

namespace {

// Bytes a value may have to become a constant. Tables of positions grow with the tokens and have few bytes each; masks grow
// with their square, which is over the limit wherever it is more than 64 MiB.
int64_t most_folded(int64_t tokens) {
  constexpr int64_t kLeast = int64_t{64} << 20, kBytesPerToken = 4096;
  return std::max(kLeast, tokens * kBytesPerToken);
}

// Runs shape inference and folding alone.
Status fold(Graph& graph, ThreadPool& pool, int64_t tokens) {
  std::vector<std::string> others;
  for (const graph::PassInfo& pass : graph::pass_table()) {
    const bool wanted = pass.name == "fold_constants" || pass.name == "inline_if" || pass.name == "remove_identities" ||
                        pass.name == "remove_dead";
    if (!wanted) others.emplace_back(pass.name);
  }
  graph::PassContext ctx;
  ctx.stage = graph::PassStage::kPlan;
  ctx.pool = &pool;
  ctx.max_folded_bytes = most_folded(tokens);
  std::vector<graph::PassRecord> records;
  return graph::run_passes(graph, ctx, others, records);
}

// Uses of an input become uses of a constant; the input stays, unused.
void bind_constant(Graph& graph, ValueId input, Tensor tensor) {
  const std::string name = graph.unique_name(graph.value(input).name + "/value");
  graph.replace_uses(input, graph.add_constant(name, std::move(tensor)));
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  return a.data() == b.data() || std::memcmp(a.data(), b.data(), static_cast<size_t>(a.size_bytes())) == 0;
}

std::vector<int64_t> integers(const Tensor& t) {
  std::vector<int64_t> values(static_cast<size_t>(t.num_elements()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = t.dtype() == DType::kS64 ? t.as<int64_t>()[i] : t.as<int32_t>()[i];
  }
  return values;
}

// Integers v(p) = at_zero + p * per_position through two points; false if no whole numbers fit.
bool fit_affine(const Tensor& near, const Tensor& far, int64_t near_past, int64_t far_past, PositionalValue& out) {
  if (near.dtype() != DType::kS64 && near.dtype() != DType::kS32) return false;
  const std::vector<int64_t> a = integers(near), b = integers(far);
  for (size_t i = 0; i < a.size(); ++i) {
    const int64_t distance = far_past - near_past;
    if (distance == 0 || (b[i] - a[i]) % distance != 0) return false;
    const int64_t slope = (b[i] - a[i]) / distance;
    if (slope != 0 && slope != 1) return false;  // counts and positions; anything else is a coincidence
    out.per_position.push_back(slope);
    out.at_zero.push_back(a[i] - slope * near_past);
  }
  return true;
}

// Splits the shape of a value with T tokens at the axis where the same value for all positions has `capacity`; false if
// there is no such axis.
bool fit_table(const Tensor& step, const Tensor* all, int64_t tokens, int64_t capacity, PositionalValue& out) {
  if (all == nullptr || all->dtype() != step.dtype() || all->shape().rank() != step.shape().rank()) return false;
  int axis = -1;
  for (int i = 0; i < step.shape().rank(); ++i) {
    if (step.shape()[i] == all->shape()[i] && !(tokens == capacity && step.shape()[i] == tokens)) continue;
    if (axis >= 0 || step.shape()[i] != tokens || all->shape()[i] != capacity) return false;
    axis = i;
  }
  if (axis < 0) return false;
  out.table = *all;
  out.outer = step.shape().num_elements(0, axis);
  out.inner = step.shape().num_elements(axis + 1, step.shape().rank());
  return true;
}

// The constant that value v of `like` is in `graph`; nullptr if it is none there.
const Tensor* same_value(const Graph& graph, ValueId v, const Graph& like) {
  return v < graph.num_values() && graph.value(v).name == like.value(v).name ? graph.constant(v) : nullptr;
}

bool has_live_user(const Graph& graph, ValueId v) { return !graph.value(v).users.empty() || graph.is_output(v); }

}  // namespace

void PositionalValue::write(int64_t position, const TensorView& out) const {
  if (!table.empty()) {
    const int64_t size = dtype_size(out.dtype) * inner;
    const int64_t capacity = table.num_elements() / (outer * inner), tokens = out.num_elements() / (outer * inner);
    for (int64_t o = 0; o < outer; ++o) {
      std::memcpy(static_cast<char*>(out.data) + o * tokens * size,
                  static_cast<const char*>(table.data()) + (o * capacity + position) * size,
                  static_cast<size_t>(tokens * size));
    }
    return;
  }
  for (size_t i = 0; i < at_zero.size(); ++i) {
    const int64_t element = at_zero[i] + position * per_position[i];
    if (out.dtype == DType::kS64) out.as<int64_t>()[i] = element;
    else out.as<int32_t>()[i] = static_cast<int32_t>(element);
  }
}

StepGraphBuilder::StepGraphBuilder(const Graph& source, const DecoderIo& io, int64_t tokens, int64_t capacity,
                                   KvType kv_type, ThreadPool& pool)
    : source_(source), io_(io), tokens_(tokens), capacity_(capacity), kv_type_(kv_type), pool_(pool) {}

Result<Graph> StepGraphBuilder::specialise(int64_t past, int64_t tokens) const {
  Graph graph = source_;
  const std::vector<int64_t> no_ids(static_cast<size_t>(tokens), 0);
  SPRUN_ASSIGN(const StepInputs small, StepInputs::make(io_, past, no_ids));
  const std::vector<ValueId> inputs(graph.inputs().begin(), graph.inputs().end());
  std::vector<ValueId> outputs = {graph.outputs()[static_cast<size_t>(io_.logits)]};
  graph.set_outputs(outputs);
  for (const StateSpec& state : io_.states) {
    Value& value = graph.value(inputs[static_cast<size_t>(state.input)]);
    value.dtype = state.dtype;
    value.shape = state.shape_at(past);
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (io_.roles[i] == DecoderIo::Role::kState) continue;
    Value& value = graph.value(inputs[i]);
    value.dtype = small.tensor(static_cast<int>(i)).dtype();
    value.shape = small.tensor(static_cast<int>(i)).shape();
    if (io_.roles[i] == DecoderIo::Role::kCacheBranch) {
      SPRUN_ASSIGN(Tensor yes, Tensor::zeros(DType::kBool, Shape{1}));
      yes.mutable_view().as<uint8_t>()[0] = 1;
      bind_constant(graph, inputs[i], std::move(yes));
    } else if (static_cast<int>(i) != io_.ids) {
      bind_constant(graph, inputs[i], small.tensor(static_cast<int>(i)));
    }
  }
  SPRUN_TRY(fold(graph, pool_, tokens));
  return graph;
}

Status StepGraphBuilder::too_long(const Status& status) const {
  return {Code::kBadInput, "the model does not take " + std::to_string(capacity_) +
                               " tokens (prompt and new ones together): " + status.message()};
}

// A node that could not be folded although all its inputs are known fails for positions the model does not have.
Status StepGraphBuilder::check_context(const Graph& all) const {
  SPRUN_ASSIGN(const std::vector<NodeId> order, all.topological_order());
  for (NodeId n : order) {
    const graph::Node& node = all.node(n);
    const bool index = node.is("Gather") || node.is("GatherND") || node.is("GatherElements") || node.is("Slice");
    if (!index) continue;
    const auto inputs = graph::known_inputs(all, node);
    if (!inputs || std::any_of(inputs->begin(), inputs->end(), [](const ConstTensorView& in) {
          return in.dtype != DType::kUndefined && in.data == nullptr && in.num_elements() > 0;
        })) {
      continue;
    }
    const auto result = graph::evaluate(node, *inputs, {.pool = &pool_});
    if (result.ok() || result.status().code() != Code::kBadInput) continue;
    return too_long(result.status());
  }
  return {};
}

Status StepGraphBuilder::explain_value(ValueId v, const Graph& near, const Graph& far, const Graph& all) {
  const Tensor &a = *near.constant(v), &b = *far.constant(v);
  PositionalValue found;
  found.value = v;
  const bool known = fit_affine(a, b, near_past(), far_past(), found) ||
                     fit_table(b, same_value(all, v, near), tokens_, capacity_, found);
  const auto refuse = [&] {
    return Status(Code::kUsage, "'" + near.value(v).name + "' depends on the position in a way that is not a table");
  };
  if (!known) return refuse();
  for (const auto& [tensor, past] : {std::pair(&a, near_past()), std::pair(&b, far_past())}) {
    SPRUN_ASSIGN(Tensor got, Tensor::allocate(tensor->dtype(), tensor->shape()));
    found.write(past, got.mutable_view());
    if (!same_bytes(got, *tensor)) return refuse();
  }
  positional_.push_back(std::move(found));
  return {};
}

Status StepGraphBuilder::analyse() {
  if (!io_.has_cache()) return {Code::kUsage, "the graph has no past keys and values"};
  for (const StateSpec& state : io_.states) {
    if (state.length_axis >= 0) continue;
    return {Code::kUsage, "state '" + io_.inputs[static_cast<size_t>(state.input)].name + "' is not keys or values"};
  }
  if (io_.fixed_tokens > 0 && io_.fixed_tokens != tokens_) {
    return {Code::kUsage, "the graph takes exactly " + std::to_string(io_.fixed_tokens) + " tokens a step"};
  }
  auto far_or = specialise(far_past(), tokens_);
  if (!far_or.ok()) return too_long(far_or.status());
  const Graph& far = *far_or;
  SPRUN_ASSIGN(const Graph near, specialise(near_past(), tokens_));
  std::vector<ValueId> differing;
  // The same passes over the same graph give the same ids; the names tell where that ends.
  for (ValueId v = 0; v < std::min(near.num_values(), far.num_values()); ++v) {
    const Tensor *a = near.constant(v), *b = far.constant(v);
    if (a == nullptr || b == nullptr || !has_live_user(near, v) || near.value(v).name != far.value(v).name) continue;
    if (a->shape() == b->shape() && !same_bytes(*a, *b)) differing.push_back(v);
  }
  Graph all;
  if (io_.fixed_tokens < 0) {
    SPRUN_ASSIGN(all, specialise(0, capacity_));
    SPRUN_TRY(check_context(all));
  }
  for (ValueId v : differing) SPRUN_TRY(explain_value(v, near, far, all));
  return {};
}

Result<StepGraph> StepGraphBuilder::build(int64_t past) const {
  StepGraph step;
  SPRUN_ASSIGN(step.graph, specialise(past, tokens_));
  Graph& graph = step.graph;
  const auto add_input = [&](const std::string& name, DType dtype, Shape shape) {  // adding values moves them
    const ValueId v = graph.add_input(graph.unique_name(name), dtype, std::nullopt);
    graph.value(v).shape = shape;
    return v;
  };
  SPRUN_TRY(keep_last_row(graph, tokens_).status());
  step.cache.past = past;
  step.ids = io_.ids;
  step.position = static_cast<int>(graph.inputs().size());
  step.cache.position = add_input("cache/position", DType::kS64, Shape{1});
  step.positions = static_cast<int>(graph.inputs().size());
  step.cache.positions = add_input("cache/positions", DType::kS64, Shape{1, tokens_});
  for (const PositionalValue& positional : positional_) {
    const Value& value = graph.value(positional.value);
    step.positional_inputs.push_back(static_cast<int>(graph.inputs().size()));
    const ValueId input = add_input(value.name + "/step", value.constant.dtype(), value.constant.shape());
    graph.replace_uses(positional.value, input);
  }
  const DType dtype = kv_type_ == KvType::kF32 ? DType::kF32 : kv_type_ == KvType::kBf16 ? DType::kBf16 : DType::kS8;
  for (const StateSpec& state : io_.states) {
    if (state.length_axis < 0) continue;
    const ValueId v = graph.inputs()[static_cast<size_t>(state.input)];
    const bool pair = state.empty.rank() == 5;
    const int first = pair ? 2 : 1;
    for (int part = pair ? 0 : -1; part < (pair ? 2 : 0); ++part) {
      const std::string name = graph.value(v).name + "/cache" + (pair ? std::to_string(part) : "");
      step.cache_inputs.push_back(static_cast<int>(graph.inputs().size()));
      step.cache.slots.push_back({v, part, add_input(name, dtype, Shape{state.empty[first], capacity_, state.empty.back()})});
    }
  }
  if (kv_type_ == KvType::kInt8) {
    for (graph::KvCacheSpec::Slot& slot : step.cache.slots) {
      const Shape& shape = *graph.value(slot.cache).shape;
      step.cache_inputs.push_back(static_cast<int>(graph.inputs().size()));
      slot.scales = add_input(graph.value(slot.cache).name + "/scales", DType::kF32, Shape{shape[0], capacity_});
    }
  }
  for (ValueId v : graph.inputs()) step.inputs.push_back({nullptr, graph.value(v).dtype, *graph.value(v).shape});
  return step;
}

}  // namespace sprun
