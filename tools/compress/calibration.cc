#include "tools/compress/calibration.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

namespace sprun::compress {

using graph::Graph;
using graph::kNoNode;
using graph::kNoValue;
using graph::NodeId;
using graph::ValueId;

namespace {

// Integer vectors up to this size are shapes and the like: known when planning, so that what
// depends on them gets a plan with memory and kernels instead of being sized when it runs.
constexpr int64_t kMaxShapeElements = 16;

bool is_shape_like(const Tensor& t) {
  return is_integer(t.dtype()) && t.shape().rank() <= 1 && t.num_elements() <= kMaxShapeElements;
}

bool is_zero(const Tensor& t, int64_t i) {
  const auto size = static_cast<size_t>(dtype_size(t.dtype()));
  const auto* bytes = static_cast<const char*>(t.data()) + static_cast<size_t>(i) * size;
  return std::all_of(bytes, bytes + size, [](char c) { return c == 0; });
}

// Calls visit(v) once for each value that is computed or given and that `starts` depend on,
// themselves included; does not go beyond a value for which it answers true.
template <class Visit>
void walk_back(const Graph& graph, std::vector<ValueId> starts, const Visit& visit) {
  std::set<ValueId> seen;
  while (!starts.empty()) {
    const ValueId at = starts.back();
    starts.pop_back();
    if (at == kNoValue || graph.value(at).is_constant() || !seen.insert(at).second) continue;
    const NodeId producer = graph.value(at).producer;
    if (visit(at) || producer == kNoNode) continue;
    for (ValueId input : graph.node(producer).inputs) starts.push_back(input);
  }
}

int64_t count_samples(const std::vector<Batch>& batches) {
  int64_t total = 0;
  for (const Batch& batch : batches) total += batch.samples;
  return total;
}

}  // namespace

int64_t Calibration::samples() const { return count_samples(batches); }
int64_t Calibration::held_out_samples() const { return count_samples(held_out); }

std::vector<int64_t> unmasked_rows(const Graph& graph, const Batch& batch, const Shape& x) {
  const int64_t rows = x.num_elements(0, x.rank() - 1);
  std::vector<int64_t> counted;
  for (size_t i = 0; i < graph.inputs().size(); ++i) {
    const Tensor& mask = batch.inputs[i];
    const bool is_mask = graph.value(graph.inputs()[i]).name.find("mask") != std::string::npos;
    if (!is_mask || is_float(mask.dtype()) || mask.num_elements() != rows) continue;
    for (int64_t r = 0; r < rows; ++r) {
      if (!is_zero(mask, r)) counted.push_back(r);
    }
    if (static_cast<int64_t>(counted.size()) == rows) counted.clear();
    return counted;
  }
  return counted;
}

ActivationWalk::ActivationWalk(const Graph& graph, const Calibration& calibration, ThreadPool& pool,
                               std::vector<ValueId> values, std::stop_token stop)
    : graph_(graph), pool_(pool), values_(std::move(values)), stop_(std::move(stop)) {
  for (const Batch& batch : calibration.batches) {
    Kept& kept = kept_.emplace_back();
    for (size_t i = 0; i < batch.inputs.size(); ++i)
      kept.emplace(graph.inputs()[i], batch.inputs[i]);
  }
}

// `from`: kept values that v needs. `to`: v, and what later values need of what is computed on the
// way.
ActivationWalk::Part ActivationWalk::plan_part(ValueId v) const {
  const Kept& available = kept_.front();
  std::set<ValueId> from, computed, later;
  walk_back(graph_, {v}, [&](ValueId at) {
    (available.contains(at) ? from : computed).insert(at);
    return available.contains(at);
  });
  walk_back(graph_, {values_.begin() + static_cast<ptrdiff_t>(at_) + 1, values_.end()},
            [&](ValueId at) {
              if (computed.contains(at)) later.insert(at);
              return computed.contains(at) || available.contains(at);
            });
  later.erase(v);
  Part part{{from.begin(), from.end()}, {v}};
  part.to.insert(part.to.end(), later.begin(), later.end());
  return part;
}

void ActivationWalk::drop_unneeded() {
  std::set<ValueId> needed;
  walk_back(graph_, {values_.begin() + static_cast<ptrdiff_t>(at_), values_.end()},
            [&](ValueId at) {
              if (kept_.front().contains(at)) needed.insert(at);
              return kept_.front().contains(at);
            });
  for (Kept& kept : kept_)
    std::erase_if(kept, [&](const auto& entry) { return !needed.contains(entry.first); });
}

Result<GraphRunner> ActivationWalk::make_runner(const Part& part, const Kept& kept) const {
  SPRUN_ASSIGN(Graph graph, extract_part(graph_, part.from, part.to));
  // Constant inputs stay in the list of inputs, so that positions are those of `from`.
  for (size_t i = 0; i < part.from.size(); ++i) {
    const Tensor& t = kept.at(part.from[i]);
    const ValueId input = graph.inputs()[i];
    if (is_shape_like(t))
      graph.replace_uses(input, graph.add_constant(graph.unique_name("shape"), t));
  }
  return GraphRunner::create(std::move(graph), pool_, SparseMode::kOff);
}

Result<std::vector<Tensor>> ActivationWalk::run_part(const Part& part, const Kept& kept) {
  std::string key;
  std::vector<ConstTensorView> inputs;
  for (ValueId v : part.from) {
    const Tensor& t = kept.at(v);
    inputs.push_back(t.view());
    if (is_shape_like(t))
      key += std::string(static_cast<const char*>(t.data()), static_cast<size_t>(t.size_bytes())) +
             ";";
  }
  if (!runner_ || key != runner_key_) {
    SPRUN_ASSIGN(GraphRunner made, make_runner(part, kept));
    runner_ = std::make_unique<GraphRunner>(std::move(made));
    runner_key_ = std::move(key);
  }
  return runner_->run(inputs, stop_);
}

Status ActivationWalk::next(const Visitor& fn) {
  const ValueId v = values_[at_];
  if (kept_.empty()) return ++at_, Status();
  const bool is_kept = kept_.front().contains(v);
  const Part part = is_kept ? Part{{}, {}} : plan_part(v);
  runner_.reset();
  for (size_t b = 0; b < kept_.size(); ++b) {
    if (stop_.stop_requested()) return {Code::kCancelled, "interrupted"};
    if (is_kept) {
      SPRUN_TRY(fn(b, kept_[b].at(v)));
      continue;
    }
    SPRUN_ASSIGN(std::vector<Tensor> values, run_part(part, kept_[b]));
    SPRUN_TRY(fn(b, values[0]));
    for (size_t i = 0; i < part.to.size(); ++i)
      kept_[b].insert_or_assign(part.to[i], std::move(values[i]));
  }
  runner_.reset();
  ++at_;
  drop_unneeded();
  return {};
}

}  // namespace sprun::compress
