#include "graph/passes/routed_blocks.h"

#include <algorithm>
#include <span>
#include <string_view>

#include "graph/ir/pattern.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {
namespace {

bool is_one_of(const Node& node, std::span<const std::string_view> ops) {
  return node.domain.empty() && std::find(ops.begin(), ops.end(), node.op_type) != ops.end();
}

// The TopK that v, a mask, comes from; nullptr if there is none. `made`: what makes zeros of its choice was already seen
// on the way; without that the result of the TopK only scales.
const Node* router_of(const Graph& graph, ValueId v, bool made = false, int depth = 0) {
  constexpr int kDeepest = 10;
  constexpr std::string_view kMakers[] = {"OneHot", "ScatterElements", "GreaterOrEqual", "Equal"};
  constexpr std::string_view kCarriers[] = {"Reshape", "Expand",    "Cast",      "Unsqueeze", "Squeeze",
                                            "Tile",    "Transpose", "ReduceSum", "ReduceMax", "Identity",
                                            "Slice",   "Gather",    "ReduceMin"};
  const Node* node = graph.producer(v);
  if (node == nullptr || depth > kDeepest) return nullptr;
  if (node->is("TopK")) return made ? node : nullptr;
  const bool maker = is_one_of(*node, kMakers);
  if (!maker && !is_one_of(*node, kCarriers)) return nullptr;
  // Indices of a scatter and both sides of a comparison are values; the second input of the others is a shape or axes.
  const bool second = maker && !node->is("OneHot");
  const auto from = [&](size_t i) {
    return node->input(i) == kNoValue ? nullptr : router_of(graph, node->inputs[i], made || maker, depth + 1);
  };
  const Node* top = second ? from(1) : nullptr;
  return top ? top : from(0);
}

}  // namespace

std::optional<double> routed_density(const Graph& graph, ValueId mask) {
  const Node* top = router_of(graph, mask);
  if (top == nullptr) return std::nullopt;
  const auto k = top->input(1) != kNoValue ? int_constant(graph, top->inputs[1]) : std::nullopt;
  const int64_t blocks = last_size(graph, top->inputs[0]);
  if (!k || k->size() != 1 || blocks <= 0) return -1;
  return std::min(1.0, static_cast<double>((*k)[0]) / static_cast<double>(blocks));
}

}  // namespace sprun::graph
