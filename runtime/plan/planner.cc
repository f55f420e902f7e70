// Builds a Plan: specialise, optimise, choose kernels, place memory.
#include <algorithm>
#include <map>
#include <numeric>
#include <optional>

#include "graph/ops/evaluate.h"
#include "runtime/base/file_map.h"
#include "runtime/base/packed_cache.h"
#include "runtime/base/thread_pool.h"
#include "runtime/plan/memory_planner.h"
#include "runtime/plan/plan.h"

namespace sprun {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::Value;
using graph::ValueId;

class Planner {
 public:
  Planner(const Graph& source, const PlanOptions& options, ThreadPool& pool, PackedCache& packed)
      : options_(options), pool_(pool), packed_(packed), plan_(std::make_shared<Plan>()), graph_(plan_->graph_) {
    graph_ = source;
  }

  Result<std::shared_ptr<const Plan>> build(std::span<const ConstTensorView> inputs) {
    SPRUN_TRY(specialise(inputs));
    SPRUN_ASSIGN(order_, graph_.topological_order());
    for (NodeId n : order_) SPRUN_TRY(add_step(n));
    place_values();
    return std::shared_ptr<const Plan>(std::move(plan_));
  }

 private:
  Status specialise(std::span<const ConstTensorView> inputs) {
    if (inputs.size() != graph_.inputs().size()) {
      return {Code::kInternal, "plan of graph '" + graph_.name + "' got the wrong number of inputs"};
    }
    for (size_t i = 0; i < inputs.size(); ++i) {
      Value& value = graph_.value(graph_.inputs()[i]);
      value.dtype = inputs[i].dtype;
      value.shape = inputs[i].shape;
    }
    graph::PassContext ctx;
    ctx.stage = graph::PassStage::kPlan;
    ctx.precision = options_.precision;
    ctx.pool = &pool_;
    ctx.sparse = options_.sparse;
    ctx.packed = &packed_;
    ctx.kv_cache = options_.kv_cache;
    ctx.max_folded_bytes = int64_t{16} << 20;
    SPRUN_TRY(graph::run_passes(graph_, ctx, options_.disabled_passes, plan_->passes_));
    plan_->notes_ = std::move(ctx.notes);
    return {};
  }

  bool is_static(ValueId v) const {
    return v == kNoValue || (graph_.value(v).dtype != DType::kUndefined && graph_.value(v).shape.has_value());
  }

  Status add_step(NodeId n) {
    const Node& node = graph_.node(n);
    Step step;
    step.node = n;
    const auto statics = [this](ValueId v) { return is_static(v); };
    step.dynamic = !std::all_of(node.inputs.begin(), node.inputs.end(), statics) ||
                   !std::all_of(node.outputs.begin(), node.outputs.end(), statics) ||
                   (node.def->flags & graph::kDynamicOutput) != 0;
    if (!step.dynamic) {
      SPRUN_TRY(check_types(node));
      SPRUN_TRY(prepare(node, step));
    } else {
      for (ValueId v : node.outputs) {
        if (v != kNoValue) graph_.value(v).shape.reset();
      }
      SPRUN_TRY(align_constants(node, {}));
    }
    plan_->steps_.push_back(std::move(step));
    return {};
  }

  // Passes set the shapes of values they create; what infer() says must agree.
  Status check_types(const Node& node) {
    const auto inputs = graph::known_inputs(graph_, node);
    bool complete = false;
    SPRUN_ASSIGN(const auto outputs, graph::infer_outputs(node, *inputs, &complete));
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (node.outputs[i] == kNoValue || !outputs[i].set) continue;
      Value& value = graph_.value(node.outputs[i]);
      if (value.dtype != outputs[i].dtype || *value.shape != outputs[i].shape) {
        return {Code::kInternal, "value '" + value.name + "' has shape " + value.shape->to_string() + ", but " +
                                     node.op_type + " makes " + outputs[i].shape.to_string()};
      }
    }
    return {};
  }

  Status prepare(const Node& node, Step& step) {
    std::vector<ConstTensorView> inputs = *graph::known_inputs(graph_, node), outputs;
    std::vector<Tensor> constants;
    for (ValueId v : node.inputs) constants.push_back(v == kNoValue ? Tensor() : graph_.value(v).constant);
    for (ValueId v : node.outputs) outputs.push_back(plan_->type_of(v));
    for (const auto& in : inputs) step.bytes += static_cast<double>(in.size_bytes());
    for (const auto& out : outputs) step.bytes += static_cast<double>(out.size_bytes());
    if (node.def->prepare == nullptr) return align_constants(node, {});
    graph::PrepareContext ctx;
    ctx.node_ = &node;
    ctx.inputs_ = inputs;
    ctx.outputs_ = outputs;
    ctx.constants_ = constants;
    ctx.max_threads_ = options_.num_threads;
    ctx.packed_ = &packed_;
    ctx.sparse_ = options_.sparse;
    SPRUN_TRY(node.def->prepare(ctx));
    step.state = std::move(ctx.state);
    step.kernel = std::move(ctx.kernel);
    step.regime = std::move(ctx.regime);
    step.detail = std::move(ctx.detail);
    step.flops = ctx.flops;
    step.rejected = std::move(ctx.rejected);
    plan_->scratch_bytes_ = std::max(plan_->scratch_bytes_, ctx.scratch_bytes);
    SPRUN_TRY(align_constants(node, ctx.unread_inputs));
    for (int i : ctx.unread_inputs) release_pages(graph_.value(node.inputs[static_cast<size_t>(i)]).constant);
    return {};
  }

  // A weight that was packed is rarely read again: its pages need not stay resident beside the packed copy.
  static void release_pages(const Tensor& constant) {
    if (constant.is_file_backed()) drop_file_pages(constant.data(), constant.size_bytes());
  }

  // Ops read constants as typed arrays: those that lie unaligned in a mapped file get an aligned copy, made once per
  // model. Inputs that prepare() has packed are not read and need none.
  Status align_constants(const Node& node, std::span<const int> unread) {
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const ValueId v = node.inputs[i];
      if (v == kNoValue || graph_.value(v).constant.is_aligned()) continue;
      if (std::find(unread.begin(), unread.end(), static_cast<int>(i)) != unread.end()) continue;
      Tensor& constant = graph_.value(v).constant;
      SPRUN_ASSIGN(PackedBlob blob, packed_.get("aligned:" + std::to_string(constant.id()), [&]() -> Result<PackedBlob> {
        SPRUN_ASSIGN(PackedBlob copy, allocate_blob(constant.size_bytes()));
        std::copy_n(static_cast<const char*>(constant.data()), constant.size_bytes(),
                    static_cast<char*>(copy.data.get()));
        release_pages(constant);
        return copy;
      }));
      void* data = blob.data.get();
      constant = Tensor::adopt(blob.data, data, constant.dtype(), constant.shape());
    }
    return {};
  }

  // --- memory. Values that share memory (views, in-place results) form a class; a class has one location.
  struct ValueClass {
    int first_step = 0, last_step = -1;
    int64_t size_bytes = 0;
    int output = -1;        // the graph output whose memory it is, or -1
    bool movable = true;    // false: root is an input or constant
  };

  ValueId root(ValueId v) {
    while (parent_[static_cast<size_t>(v)] != v) v = parent_[static_cast<size_t>(v)];
    return v;
  }
  ValueClass& class_of(ValueId v) { return classes_[static_cast<size_t>(root(v))]; }

  void place_values() {
    const auto count = static_cast<size_t>(graph_.num_values());
    parent_.resize(count);
    std::iota(parent_.begin(), parent_.end(), 0);
    classes_.resize(count);
    plan_->locations_.resize(count);
    find_last_uses();
    for (size_t s = 0; s < plan_->steps_.size(); ++s) assign_classes(static_cast<int>(s));
    assign_outputs();
    assign_offsets();
    list_dynamic_frees();
    drop_views();
  }

  // A view that shares the memory of its input has nothing left to do.
  void drop_views() {
    std::erase_if(plan_->steps_, [&](const Step& step) {
      const Node& node = graph_.node(step.node);
      if (step.dynamic || !(node.def->flags & graph::kView) || node.outputs.size() != 1) return false;
      return node.inputs[0] != kNoValue && node.outputs[0] != kNoValue && root(node.inputs[0]) == root(node.outputs[0]);
    });
  }

  void find_last_uses() {
    last_use_.assign(static_cast<size_t>(graph_.num_values()), -1);
    for (size_t s = 0; s < plan_->steps_.size(); ++s) {
      for (ValueId v : graph_.node(plan_->steps_[s].node).inputs) {
        if (v != kNoValue) last_use_[static_cast<size_t>(v)] = static_cast<int>(s);
      }
    }
    for (ValueId v : graph_.outputs()) last_use_[static_cast<size_t>(v)] = static_cast<int>(plan_->steps_.size());
    for (ValueId v = 0; v < graph_.num_values(); ++v) {
      ValueClass& cls = classes_[static_cast<size_t>(v)];
      cls.movable = !graph_.value(v).is_constant() && !graph_.value(v).is_input;
      cls.last_step = last_use_[static_cast<size_t>(v)];
    }
  }

  void assign_classes(int s) {
    const Step& step = plan_->steps_[static_cast<size_t>(s)];
    const Node& node = graph_.node(step.node);
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const ValueId v = node.outputs[i];
      if (v == kNoValue) continue;
      ValueClass& cls = classes_[static_cast<size_t>(v)];
      cls.first_step = s;
      cls.last_step = std::max(cls.last_step, s);
      if (step.dynamic) continue;
      cls.size_bytes = plan_->type_of(v).size_bytes();
      const ValueId from = node.input(0);
      if (i == 0 && from != kNoValue && can_share(node, from, v, s)) {
        ValueClass& target = class_of(from);
        target.last_step = std::max(target.last_step, cls.last_step);
        parent_[static_cast<size_t>(v)] = root(from);
      }
    }
  }

  bool can_share(const Node& node, ValueId from, ValueId to, int s) {
    if (is_dynamic(from) || graph_.value(from).constant.data() != nullptr) {
      if (is_dynamic(from) || !(node.def->flags & graph::kView)) return false;
    }
    if (plan_->type_of(from).size_bytes() != plan_->type_of(to).size_bytes()) return false;
    if (node.def->flags & graph::kView) return true;
    if (!(node.def->flags & graph::kInPlace)) return false;
    const ValueClass& cls = class_of(from);
    const auto readers = std::count_if(node.inputs.begin(), node.inputs.end(),
                                       [&](ValueId v) { return v != kNoValue && root(v) == root(from); });
    return cls.movable && cls.last_step == s && readers == 1;
  }

  bool is_dynamic(ValueId v) const { return !is_static(v); }

  void assign_outputs() {
    for (size_t k = 0; k < graph_.outputs().size(); ++k) {
      const ValueId v = graph_.outputs()[k];
      ValueClass& cls = class_of(v);
      const bool direct = is_static(v) && cls.movable && cls.output < 0 && !graph_.is_input_or_constant(v);
      if (direct) {
        cls.output = static_cast<int>(k);
      } else {
        plan_->copies_.push_back({static_cast<int>(k), v});
      }
    }
  }

  void assign_offsets() {
    std::vector<MemoryBlock> blocks;
    std::vector<ValueId> owners;
    for (ValueId v = 0; v < graph_.num_values(); ++v) {
      const ValueClass& cls = classes_[static_cast<size_t>(v)];
      if (root(v) != v || !cls.movable || cls.output >= 0 || is_dynamic(v) || graph_.value(v).producer == kNoNode) continue;
      blocks.push_back({cls.size_bytes, cls.first_step, cls.last_step, 0});
      owners.push_back(v);
    }
    plan_->arena_bytes_ = plan_memory(blocks);
    for (size_t i = 0; i < owners.size(); ++i) {
      plan_->locations_[static_cast<size_t>(owners[i])] = {Location::Kind::kArena, blocks[i].offset};
    }
    for (ValueId v = 0; v < graph_.num_values(); ++v) {
      const ValueId r = root(v);
      Location& location = plan_->locations_[static_cast<size_t>(v)];
      const Value& value = graph_.value(r);
      if (is_dynamic(v) && !graph_.value(v).is_input) {
        location = {Location::Kind::kDynamic, 0};
      } else if (value.is_constant()) {
        location = {Location::Kind::kConstant, r};
      } else if (value.is_input) {
        const auto inputs = graph_.inputs();
        location = {Location::Kind::kInput, std::find(inputs.begin(), inputs.end(), r) - inputs.begin()};
      } else if (classes_[static_cast<size_t>(r)].output >= 0) {
        location = {Location::Kind::kOutput, classes_[static_cast<size_t>(r)].output};
      } else if (r != v) {
        location = plan_->locations_[static_cast<size_t>(r)];
      }
    }
  }

  void list_dynamic_frees() {
    for (ValueId v = 0; v < graph_.num_values(); ++v) {
      const int last = last_use_[static_cast<size_t>(v)];
      if (plan_->locations_[static_cast<size_t>(v)].kind != Location::Kind::kDynamic || last < 0) continue;
      if (last < static_cast<int>(plan_->steps_.size())) plan_->steps_[static_cast<size_t>(last)].last_uses.push_back(v);
    }
  }

  const PlanOptions& options_;
  ThreadPool& pool_;
  PackedCache& packed_;
  std::shared_ptr<Plan> plan_;
  Graph& graph_;
  std::vector<NodeId> order_;
  std::vector<ValueId> parent_;
  std::vector<ValueClass> classes_;
  std::vector<int> last_use_;
};

Result<std::shared_ptr<const Plan>> Plan::build(const Graph& source, std::span<const ConstTensorView> inputs,
                                                const PlanOptions& options, ThreadPool& pool, PackedCache& packed) {
  return Planner(source, options, pool, packed).build(inputs);
}

ConstTensorView Plan::type_of(ValueId v) const {
  if (v == kNoValue) return {};
  const Value& value = graph_.value(v);
  if (value.is_constant()) return value.constant.view();
  if (value.dtype == DType::kUndefined || !value.shape) return {};
  return {nullptr, value.dtype, *value.shape};
}

}  // namespace sprun
