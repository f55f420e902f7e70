#include "tools/compress/graph_runner.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <set>
#include <unordered_map>
#include <utility>

#include "graph/passes/pass.h"
#include "runtime/plan/plan.h"

namespace sprun::compress {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::Node;
using graph::NodeId;
using graph::Value;
using graph::ValueId;

namespace {

constexpr size_t kMinTimedRuns = 5, kMaxTimedRuns = 100;
constexpr double kTimedMs = 20;
// More than caches hold; a line of them.
constexpr int64_t kMaxBytesBetween = int64_t{64} << 20, kCacheLine = 64;

// One byte of each line; the result keeps the reads from being dropped.
uint64_t read_lines(const void* data, int64_t bytes) {
  const auto* at = static_cast<const unsigned char*>(data);
  uint64_t sum = 0;
  for (int64_t i = 0; i < bytes; i += kCacheLine) sum += at[i];
  return sum;
}

// What happens in a model between two runs of one of its layers.
class Interlude {
 public:
  explicit Interlude(int64_t bytes)
      : others_(static_cast<size_t>(std::clamp<int64_t>(bytes, 0, kMaxBytesBetween)), 1) {}

  void play(std::span<const ConstTensorView> inputs) {
    if (others_.empty()) return;
    uint64_t sum = read_lines(others_.data(), static_cast<int64_t>(others_.size()));
    for (const ConstTensorView& input : inputs) sum += read_lines(input.data, input.size_bytes());
    others_[0] = static_cast<unsigned char>(sum);
  }

 private:
  std::vector<unsigned char> others_;
};

// Nodes that `to` needs when `from` is given.
Result<std::set<NodeId>> needed_nodes(const Graph& graph, const std::set<ValueId>& from,
                                      std::span<const ValueId> to) {
  std::set<NodeId> needed;
  std::vector<ValueId> pending(to.begin(), to.end());
  while (!pending.empty()) {
    const ValueId v = pending.back();
    pending.pop_back();
    if (v == kNoValue || from.contains(v) || graph.value(v).is_constant()) continue;
    const NodeId producer = graph.value(v).producer;
    if (producer == kNoNode) {
      return Status(Code::kInternal, "value '" + graph.value(v).name + "' is not given");
    }
    if (!needed.insert(producer).second) continue;
    for (ValueId input : graph.node(producer).inputs) pending.push_back(input);
  }
  return needed;
}

class PartBuilder {
 public:
  explicit PartBuilder(const Graph& source) : source_(source) {}

  void add_input(ValueId v) {
    const ValueId made = copy_value(v);
    part_.add_existing_input(made);
  }

  void add_node(const Node& node) {
    std::vector<ValueId> inputs, outputs;
    for (ValueId v : node.inputs) inputs.push_back(copy_value(v));
    for (ValueId v : node.outputs) outputs.push_back(copy_value(v));
    const NodeId made = part_.add_node_with_outputs(node.domain, node.op_type, node.version,
                                                    std::move(inputs), std::move(outputs));
    part_.node(made).name = node.name;
    part_.node(made).attrs = node.attrs;
    part_.node(made).def = node.def;
  }

  Graph finish(std::span<const ValueId> to) {
    std::vector<ValueId> outputs;
    for (ValueId v : to) outputs.push_back(copy_value(v));
    part_.set_outputs(std::move(outputs));
    part_.name = source_.name;
    return std::move(part_);
  }

 private:
  ValueId copy_value(ValueId v) {
    if (v == kNoValue) return kNoValue;
    const auto [it, fresh] = made_.emplace(v, kNoValue);
    if (!fresh) return it->second;
    const Value& value = source_.value(v);
    it->second = part_.add_value(value.name);
    if (value.is_constant()) part_.make_constant(it->second, value.constant);
    return it->second;
  }

  const Graph& source_;
  Graph part_;
  std::unordered_map<ValueId, ValueId> made_;
};

}  // namespace

Result<Graph> extract_part(const Graph& graph, std::span<const ValueId> from,
                           std::span<const ValueId> to) {
  SPRUN_ASSIGN(const std::set<NodeId> needed,
               needed_nodes(graph, std::set<ValueId>(from.begin(), from.end()), to));
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  PartBuilder builder(graph);
  for (ValueId v : from) builder.add_input(v);
  for (NodeId n : order) {
    if (needed.contains(n)) builder.add_node(graph.node(n));
  }
  return builder.finish(to);
}

Result<GraphRunner> GraphRunner::create(Graph graph, ThreadPool& pool, SparseMode sparse) {
  GraphRunner runner;
  runner.graph_ = std::make_unique<Graph>(std::move(graph));
  runner.packed_ = std::make_unique<PackedCache>();
  runner.pool_ = &pool;
  runner.sparse_ = sparse;
  graph::PassContext ctx;
  ctx.pool = &pool;
  std::vector<graph::PassRecord> records;
  SPRUN_TRY(graph::run_passes(*runner.graph_, ctx, {}, records));
  return runner;
}

Status GraphRunner::plan_for(std::span<const ConstTensorView> inputs) {
  std::string key;
  for (const ConstTensorView& input : inputs) {
    key += std::string(dtype_name(input.dtype)) + input.shape.to_string() + ";";
  }
  if (executor_ && key == key_) return {};
  executor_.reset();
  const PlanOptions options{.num_threads = pool_->num_threads(), .sparse = sparse_};
  auto built = Plan::build(*graph_, inputs, options, *pool_, *packed_);
  if (!built.ok() &&
      built.status().code() == Code::kBadModel) {  // with other shapes the same graph runs
    return {Code::kBadInput, "the input shapes do not fit the model: " + built.status().message()};
  }
  SPRUN_ASSIGN(auto plan, std::move(built));
  const ExecutionEnv env{.pool = pool_, .packed = packed_.get(), .sparse = sparse_};
  SPRUN_ASSIGN(executor_, Executor::create(std::move(plan), env));
  key_ = std::move(key);
  return {};
}

Status GraphRunner::run_once(std::span<const ConstTensorView> inputs, const std::stop_token& stop) {
  Status status;
  pool_->enter([&] {
    status = plan_for(inputs);
    if (status.ok())
      status = executor_->run(inputs, {}, RunOptions{.stop = stop, .deadline = {}}, nullptr);
  });
  return status;
}

Result<std::vector<Tensor>> GraphRunner::run(std::span<const ConstTensorView> inputs,
                                             std::stop_token stop) {
  SPRUN_TRY(run_once(inputs, stop));
  std::vector<Tensor> outputs;
  for (size_t k = 0; k < graph_->outputs().size(); ++k) {
    SPRUN_ASSIGN(Tensor tensor, executor_->take_output(static_cast<int>(k)));
    outputs.push_back(std::move(tensor));
  }
  return outputs;
}

Result<double> GraphRunner::time_ms(std::span<const ConstTensorView> inputs, std::stop_token stop,
                                    int64_t bytes_between) {
  using Clock = std::chrono::steady_clock;
  const auto ms_since = [](Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  };
  SPRUN_TRY(run_once(inputs, stop));
  Interlude interlude(bytes_between);
  double least = std::numeric_limits<double>::infinity();
  const auto start = Clock::now();
  for (size_t runs = 0; runs < kMinTimedRuns || (runs < kMaxTimedRuns && ms_since(start) < kTimedMs); ++runs) {
    interlude.play(inputs);
    const auto before = Clock::now();
    SPRUN_TRY(run_once(inputs, stop));
    least = std::min(least, ms_since(before));
  }
  return least;
}

}  // namespace sprun::compress
