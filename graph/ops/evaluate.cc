#include "graph/ops/evaluate.h"

#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"

namespace sprun::graph {

namespace {

std::string describe(const Node& node) {
  return (node.domain.empty() ? "" : node.domain + ".") + node.op_type + " '" + node.name + "'";
}

Status check_arity(const Node& node) {
  const OpDef& def = *node.def;
  const auto bad = [&](const char* what, size_t got, Arity want) {
    std::string range = std::to_string(want.min);
    if (want.max == kVariadic) {
      range.append(" or more");
    } else if (want.max != want.min) {
      range.append(" to ").append(std::to_string(want.max));
    }
    return Status(Code::kBadModel, describe(node) + " has " + std::to_string(got) + " " + what + ", expected " + range);
  };
  if (node.inputs.size() > static_cast<size_t>(def.inputs.max)) return bad("inputs", node.inputs.size(), def.inputs);
  for (size_t i = 0; i < static_cast<size_t>(def.inputs.min); ++i) {
    if (i >= node.inputs.size()) return bad("inputs", node.inputs.size(), def.inputs);
  }
  if (node.outputs.size() > static_cast<size_t>(def.outputs.max)) return bad("outputs", node.outputs.size(), def.outputs);
  return {};
}

bool is_wanted(const Node& node, size_t i) { return i < node.outputs.size() && node.outputs[i] != kNoValue; }

}  // namespace

std::optional<std::vector<ConstTensorView>> known_inputs(const Graph& graph, const Node& node) {
  std::vector<ConstTensorView> views;
  views.reserve(node.inputs.size());
  for (ValueId v : node.inputs) {
    if (v == kNoValue) {
      views.emplace_back();
      continue;
    }
    const Value& value = graph.value(v);
    if (value.is_constant()) {
      views.push_back(value.constant.view());
    } else if (value.dtype != DType::kUndefined && value.shape) {
      views.push_back({nullptr, value.dtype, *value.shape});
    } else {
      return std::nullopt;
    }
  }
  return views;
}

Result<std::vector<InferContext::Output>> infer_outputs(const Node& node, std::span<const ConstTensorView> inputs,
                                                        bool* complete) {
  if (node.def == nullptr) return Status(Code::kBadModel, describe(node) + " is not supported");
  SPRUN_TRY(check_arity(node));
  for (size_t i = 0; i < static_cast<size_t>(node.def->inputs.min) && i < inputs.size(); ++i) {
    if (inputs[i].dtype == DType::kUndefined) {
      return Status(Code::kBadModel, describe(node) + ": input " + std::to_string(i) + " is required but absent");
    }
  }
  std::vector<InferContext::Output> outputs(node.outputs.size());
  InferContext ctx(node, inputs, outputs);
  SPRUN_TRY(node.def->infer(ctx));
  *complete = true;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (is_wanted(node, i) && !outputs[i].set) *complete = false;
    if (!outputs[i].set) continue;
    if (auto checked = Shape::checked(outputs[i].shape.dims()); !checked.ok()) {
      return checked.status().with_context(describe(node));
    }
  }
  return outputs;
}

namespace {

// Owns everything one evaluation needs.
class Evaluation {
 public:
  Evaluation(const Node& node, std::span<const ConstTensorView> inputs, const EvaluateOptions& options)
      : node_(node), inputs_(inputs.begin(), inputs.end()), options_(options), tensors_(node.outputs.size()),
        views_(node.outputs.size()) {}

  Result<std::vector<Tensor>> run() {
    bool complete = false;
    SPRUN_ASSIGN(const std::vector<InferContext::Output> outputs, infer_outputs(node_, inputs_, &complete));
    const bool dynamic = (node_.def->flags & kDynamicOutput) != 0;
    if (!complete && !dynamic) {
      return Status(Code::kInternal, describe(node_) + ": shape inference failed with all data at hand");
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (is_wanted(node_, i) && outputs[i].set) SPRUN_TRY(allocate(i, outputs[i].dtype, outputs[i].shape));
    }
    SPRUN_TRY(prepare());
    RunContext ctx;
    ctx.node_ = &node_;
    ctx.inputs_ = inputs_;
    ctx.outputs_ = views_;
    ctx.pool_ = options_.pool;
    ctx.state_ = state_.get();
    ctx.scratch_ = scratch_.data.get();
    ctx.subgraphs_ = options_.subgraphs;
    ctx.alloc_ = [this](int i, DType dtype, const Shape& shape) -> Result<TensorView> {
      SPRUN_TRY(allocate(static_cast<size_t>(i), dtype, shape));
      return views_[static_cast<size_t>(i)];
    };
    SPRUN_TRY(node_.def->run(ctx));
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (is_wanted(node_, i) && tensors_[i].empty()) {
        return Status(Code::kInternal, describe(node_) + ": output " + std::to_string(i) + " was not produced");
      }
    }
    return std::move(tensors_);
  }

 private:
  Status allocate(size_t i, DType dtype, const Shape& shape) {
    if (i >= tensors_.size()) return {};
    auto tensor = Tensor::allocate(dtype, shape);
    if (!tensor.ok()) return tensor.status().with_context(describe(node_));
    tensors_[i] = std::move(*tensor);
    views_[i] = tensors_[i].mutable_view();
    return {};
  }

  Status prepare() {
    if (node_.def->prepare == nullptr) return {};
    constants_.assign(options_.constants.begin(), options_.constants.end());
    constants_.resize(inputs_.size());
    std::vector<ConstTensorView> inputs = inputs_, outputs(views_.begin(), views_.end());
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (constants_[i].empty()) inputs[i].data = nullptr;
    }
    PrepareContext ctx;
    ctx.node_ = &node_;
    ctx.inputs_ = inputs;
    ctx.outputs_ = outputs;
    ctx.constants_ = constants_;
    ctx.max_threads_ = options_.pool->num_threads();
    ctx.packed_ = options_.packed ? options_.packed : &own_cache_;
    ctx.sparse_ = options_.sparse;
    SPRUN_TRY(node_.def->prepare(ctx));
    state_ = std::move(ctx.state);
    if (ctx.scratch_bytes > 0) {
      SPRUN_ASSIGN(scratch_, allocate_blob(ctx.scratch_bytes));
    }
    return {};
  }

  const Node& node_;
  std::vector<ConstTensorView> inputs_;
  const EvaluateOptions& options_;
  std::vector<Tensor> tensors_;
  std::vector<TensorView> views_;
  std::vector<Tensor> constants_;
  PackedCache own_cache_;
  std::unique_ptr<const OpState> state_;
  PackedBlob scratch_;
};

}  // namespace

Result<std::vector<Tensor>> evaluate(const Node& node, std::span<const ConstTensorView> inputs,
                                     const EvaluateOptions& options) {
  return Evaluation(node, inputs, options).run();
}

}  // namespace sprun::graph
