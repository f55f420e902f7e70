#include "tools/compress/value_shapes.h"

#include <algorithm>
#include <utility>

#include "graph/passes/pass.h"

namespace sprun::compress {

using graph::Graph;
using graph::ValueId;

Result<ValueShapes> ValueShapes::create(const Graph& graph, const Batch& batch, ThreadPool& pool) {
  Graph copy = graph;
  if (batch.inputs.size() != copy.inputs().size()) return Status(Code::kInternal, "a batch with the wrong number of inputs");
  for (size_t i = 0; i < batch.inputs.size(); ++i) {
    graph::Value& value = copy.value(copy.inputs()[i]);
    value.dtype = batch.inputs[i].dtype();
    value.shape = batch.inputs[i].shape();
  }
  graph::PassContext context;
  context.stage = graph::PassStage::kPlan;
  context.pool = &pool;
  context.max_folded_bytes = int64_t{1} << 20;
  const auto passes = graph::pass_table();
  const auto fold = std::find_if(passes.begin(), passes.end(), [](const auto& p) { return p.name == "fold_constants"; });
  if (fold == passes.end()) return Status(Code::kInternal, "no pass finds shapes");
  const auto folded = fold->run(copy, context);
  if (!folded.ok()) {
    return Status(Code::kBadInput, "the calibration data does not fit the model: " + folded.status().message());
  }
  return ValueShapes(std::move(copy));
}

const Shape* ValueShapes::of(ValueId v) const {
  if (v == graph::kNoValue || v >= graph_.num_values()) return nullptr;
  const graph::Value& value = graph_.value(v);
  return value.shape ? &*value.shape : nullptr;
}

}  // namespace sprun::compress
