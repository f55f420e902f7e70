// Integer sums that a float16 model scales stay exact until they are scaled. Converted models say
//   y = Cast(MatMulInteger(a, b), float16) * s
// although a sum of a few hundred products of bytes is beyond float16's 65504; the scaled value is not. It becomes
//   y = Cast(Cast(MatMulInteger(a, b), float) * Cast(s, float), float16)
#include <string>
#include <utility>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

constexpr int64_t kOnnxFloat = 1, kOnnxFloat16 = 10;

// A cast of integer sums to float16?
const Node* cast_of_sums(const Graph& graph, ValueId v) {
  const Node* cast = producer_is(graph, v, "Cast");
  if (cast == nullptr || cast->attrs.get_int("to", 0) != kOnnxFloat16) return nullptr;
  const ValueId sums = cast->input(0);
  return producer_is(graph, sums, "MatMulInteger") || producer_is(graph, sums, "ConvInteger") ? cast : nullptr;
}

ValueId add_float_node(Graph& graph, const std::string& op, int version, std::vector<ValueId> inputs, ValueId shape_of) {
  const std::optional<Shape> shape = graph.value(shape_of).shape;
  const std::string name = graph.unique_name(graph.value(shape_of).name + "/float");
  const NodeId n = graph.add_node("", op, version, std::move(inputs), {name});
  graph.node(n).name = name;
  graph.node(n).def = find_op("", op, version);
  if (op == "Cast") graph.node(n).attrs.set("to", kOnnxFloat);
  const ValueId v = graph.node(n).outputs[0];
  graph.value(v).dtype = DType::kF32;
  graph.value(v).shape = shape;
  return v;
}

}  // namespace

Result<int> pass_widen_scaled_sums(Graph& graph, PassContext&) {
  int widened = 0;
  const NodeId count = graph.num_nodes();
  for (NodeId n = 0; n < count; ++n) {
    if (graph.node(n).dead || !graph.node(n).is("Mul")) continue;
    ValueId scale = kNoValue;
    const ValueId half = pick_input(graph.node(n), [&](ValueId v) { return cast_of_sums(graph, v) != nullptr; }, &scale);
    if (half == kNoValue) continue;
    const ValueId y = graph.node(n).outputs[0];
    const ValueId sums = cast_of_sums(graph, half)->inputs[0];
    const ValueId wide = add_float_node(graph, "Cast", 13, {sums}, sums);
    const ValueId factor = add_float_node(graph, "Cast", 13, {scale}, scale);
    const ValueId product = add_float_node(graph, "Mul", 14, {wide, factor}, y);
    graph.node(take_over(graph, y, "", "Cast", 13, {product})).attrs.set("to", kOnnxFloat16);
    ++widened;
  }
  return widened;
}

}  // namespace sprun::graph
