// Keys and values stay where they are: one plan for each number of new tokens, valid at every position.
#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <utility>

#include "runtime/generate/kv_memory.h"
#include "runtime/generate/same_plan.h"
#include "runtime/generate/step_graph.h"
#include "runtime/generate/token_decoder.h"

namespace sprun {

namespace {

// Steps of one number of tokens.
struct TokenStep {
  std::vector<PositionalValue> positional;
  std::vector<Tensor> values;         // of the positional inputs
  Tensor ids, position, positions;
  std::unique_ptr<Executor> executor;
  std::vector<ConstTensorView> inputs;
};

class CachedDecoder : public TokenDecoder {
 public:
  CachedDecoder(const DecoderIo& io, const DecoderEnv& env, int64_t capacity, KvType kv_type)
      : io_(io), env_(env), capacity_(capacity), kv_type_(kv_type) {}

  Result<ConstTensorView> append(std::span<const int64_t> ids, const RunOptions& options) override {
    const auto tokens = static_cast<int64_t>(ids.size());
    if (length_ + tokens > capacity_) {
      return Status(Code::kBadInput, "the cache holds " + std::to_string(capacity_) + " tokens, got " +
                                         std::to_string(length_ + tokens));
    }
    SPRUN_TRY(prepare(tokens));
    memory_.expect(length_ + tokens, capacity_);
    TokenStep& step = steps_.at(tokens);
    SPRUN_TRY(write_ids(ids, step.ids));
    step.position.mutable_view().as<int64_t>()[0] = length_;
    std::iota(step.positions.mutable_view().as<int64_t>(), step.positions.mutable_view().as<int64_t>() + tokens, length_);
    for (size_t i = 0; i < step.positional.size(); ++i) step.positional[i].write(length_, step.values[i].mutable_view());
    const TensorView own{};
    SPRUN_TRY(step.executor->run(step.inputs, std::span(&own, 1), options, times_ ? &times_->latest() : nullptr));
    length_ += tokens;
    if (times_) add_times(*step.executor);
    return last_logits(step.executor->output(0));
  }

  Status prepare(int64_t tokens) override {
    if (steps_.contains(tokens)) return {};
    StepGraphBuilder builder(env_.model->onnx_graph(), io_, tokens, capacity_, kv_type_, *env_.pool);
    SPRUN_TRY(builder.analyse());
    SPRUN_ASSIGN(StepGraph near, builder.build(builder.near_past()));
    SPRUN_ASSIGN(StepGraph far, builder.build(builder.far_past()));
    SPRUN_ASSIGN(const auto near_plan, plan(near));
    SPRUN_ASSIGN(const auto far_plan, plan(far));
    if (const std::string where = difference(*near_plan, *far_plan); !where.empty()) return {Code::kUsage, where};
    TokenStep step;
    SPRUN_ASSIGN(step.executor, Executor::create(far_plan, env_.execution));
    const auto values = builder.positional();
    step.positional.assign(values.begin(), values.end());
    for (PositionalValue& value : step.positional) share_table(value);
    SPRUN_TRY(bind(far, step));
    steps_.emplace(tokens, std::move(step));
    return {};
  }

  int64_t kv_bytes() const override {
    int64_t total = 0;
    for (const ConstTensorView& cache : caches_) total += cache.size_bytes() / capacity_ * length_;
    return total;
  }
  int64_t kv_committed_bytes() const override { return memory_.committed_bytes(); }

  std::string explain() const override { return steps_.at(1).executor->plan().explain(); }
  void reset() override {
    length_ = 0;
    memory_.release();
  }
  int64_t capacity() const override { return capacity_; }

 private:
  Result<std::shared_ptr<const Plan>> plan(const StepGraph& step) const {
    PlanOptions options = env_.model->plan_options(*env_.pool);
    options.kv_cache = &step.cache;
    SPRUN_ASSIGN(auto made, Plan::build(step.graph, step.inputs, options, *env_.pool, env_.model->packed));
    // Whatever still reads the past input was not taken over by the cache.
    for (const graph::KvCacheSpec::Slot& slot : step.cache.slots) {
      const graph::Value& past = made->graph().value(slot.past);
      if (past.users.empty()) continue;
      for (const std::string& note : made->notes()) {
        if (note.starts_with("cache_attention:") || note.starts_with("fuse_attention:")) return Status(Code::kUsage, note);
      }
      return Status(Code::kUsage, "the past '" + past.name + "' is read by " +
                                      made->graph().node(past.users.front()).op_type + ", not by attention alone");
    }
    return made;
  }

  // The plan knows caches as long as the context; attention reads what is filled.
  void add_times(const Executor& executor) {
    const Plan& plan = executor.plan();
    const double unused = 1.0 - static_cast<double>(length_) / static_cast<double>(capacity_);
    for (size_t s = 0; s < times_->latest().size(); ++s) {
      StepProfile& step = times_->latest()[s];
      if (step.op != "sprun.CachedAttention") continue;
      step.flops *= 1.0 - unused;
      for (const graph::ValueId input : plan.graph().node(plan.steps()[s].node).inputs) {
        if (input == graph::kNoValue || plan.location(input).kind != Location::Kind::kInput) continue;
        const auto bytes = static_cast<double>(plan.type_of(input).size_bytes());
        if (is_cache(plan.type_of(input))) step.bytes -= unused * bytes;
      }
    }
    times_->add();
  }

  bool is_cache(const ConstTensorView& type) const {
    return std::any_of(caches_.begin(), caches_.end(), [&](const ConstTensorView& cache) {
      return cache.dtype == type.dtype && cache.shape == type.shape;
    });
  }

  // Tables are as long as the context: steps of all sizes use the same memory.
  void share_table(PositionalValue& value) const {
    for (const auto& [tokens, step] : steps_) {
      for (const PositionalValue& other : step.positional) {
        const bool same = value.value == other.value && value.table.shape() == other.table.shape() &&
                          value.table.dtype() == other.table.dtype();
        if (!same || value.table.empty()) continue;
        const auto size = static_cast<size_t>(value.table.size_bytes());
        if (std::memcmp(value.table.data(), other.table.data(), size) == 0) value.table = other.table;
      }
    }
  }

  Status bind(const StepGraph& graph, TokenStep& step) {
    step.inputs = graph.inputs;
    const auto set = [&](int input, Tensor& tensor) -> Status {
      const ConstTensorView& type = graph.inputs[static_cast<size_t>(input)];
      SPRUN_ASSIGN(tensor, Tensor::zeros(type.dtype, type.shape));
      step.inputs[static_cast<size_t>(input)] = tensor.view();
      return {};
    };
    SPRUN_TRY(set(graph.ids, step.ids));
    SPRUN_TRY(set(graph.position, step.position));
    SPRUN_TRY(set(graph.positions, step.positions));
    step.values.resize(step.positional.size());
    for (size_t i = 0; i < step.values.size(); ++i) SPRUN_TRY(set(graph.positional_inputs[i], step.values[i]));
    if (caches_.empty()) SPRUN_TRY(reserve(graph));
    for (size_t i = 0; i < caches_.size(); ++i) step.inputs[static_cast<size_t>(graph.cache_inputs[i])] = caches_[i];
    return {};
  }

  // Places of the caches, [heads, capacity, ...] each.
  Status reserve(const StepGraph& graph) {
    std::vector<KvPart> parts;
    for (const int input : graph.cache_inputs) {
      const ConstTensorView& type = graph.inputs[static_cast<size_t>(input)];
      parts.push_back({type.shape[0], type.shape[0] > 0 ? type.size_bytes() / type.shape[0] : 0});
    }
    SPRUN_ASSIGN(memory_, KvMemory::reserve(parts));
    for (size_t i = 0; i < parts.size(); ++i) {
      caches_.push_back(graph.inputs[static_cast<size_t>(graph.cache_inputs[i])]);
      caches_.back().data = memory_.at(i);
    }
    return {};
  }

  DecoderIo io_;
  DecoderEnv env_;
  int64_t capacity_;
  KvType kv_type_;
  std::map<int64_t, TokenStep> steps_;
  KvMemory memory_;
  std::vector<ConstTensorView> caches_;  // by slot; then scales
};

}  // namespace

Result<std::unique_ptr<TokenDecoder>> make_cached_decoder(const DecoderIo& io, const DecoderEnv& env, int64_t capacity,
                                                          KvType kv_type) {
  auto decoder = std::make_unique<CachedDecoder>(io, env, capacity, kv_type);
  SPRUN_TRY(decoder->prepare(1));
  return std::unique_ptr<TokenDecoder>(std::move(decoder));
}

}  // namespace sprun
