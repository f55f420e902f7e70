// Batched products over [batch * heads, ...] become products over [batch, heads, ...], as pass_fuse_attention looks for them:
//
//   MatMul(Reshape(a), Reshape(b))                  -> Reshape(MatMul(a, b)),   a [B,H,S,D]
//   MatMul(Reshape(a), Transpose(Reshape(b)))       -> Reshape(MatMul(a, Transpose(b)))
//   Mul, Div or Add of such a Reshape with another  -> the Reshape of their result
//   Reshape back to four axes                       -> nothing
//
// BLOOM adds its ALiBi that way. Reshapes cost nothing, so it does not matter where no attention comes of it. Plan stage.
#include <set>
#include <string>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/passes/attention_heads.h"
#include "graph/passes/pass.h"

namespace sprun::graph {

namespace {

// x [B,H,M,N] of v = Reshape(x) [B*H,M,N]; kNoValue for anything else.
ValueId folded(const Graph& graph, ValueId v) {
  const Node* reshape = producer_is(graph, v, "Reshape");
  if (reshape == nullptr) return kNoValue;
  const Shape *from = shape_of(graph, reshape->inputs[0]), *to = shape_of(graph, v);
  const bool folds = from && to && from->rank() == 4 && *to == Shape{(*from)[0] * (*from)[1], (*from)[2], (*from)[3]};
  return folds ? reshape->inputs[0] : kNoValue;
}

Result<ValueId> shape_constant(Graph& graph, const Shape& shape, const std::string& name) {
  SPRUN_ASSIGN(Tensor sizes, Tensor::allocate(DType::kS64, Shape{shape.rank()}));
  for (int i = 0; i < shape.rank(); ++i) sizes.mutable_view().as<int64_t>()[i] = shape[i];
  return graph.add_constant(graph.unique_name(name), std::move(sizes));
}

ValueId add_op(Graph& graph, const Node& like, std::vector<ValueId> inputs, const Shape& shape) {
  const NodeId n = graph.add_node("", like.op_type, like.version, std::move(inputs), {graph.unique_name(like.name + "/heads")});
  Node& node = graph.node(n);
  node.name = like.name + "/heads";
  node.def = find_op("", like.op_type, like.version);
  graph.value(node.outputs[0]).dtype = DType::kF32;
  graph.value(node.outputs[0]).shape = shape;
  return node.outputs[0];
}

class Unfolder {
 public:
  explicit Unfolder(Graph& graph) : graph_(graph) {}

  Result<bool> visit(NodeId n) {
    const Node node = graph_.node(n);  // adding nodes moves the storage
    if (node.dead || node.outputs.size() != 1 || graph_.value(node.outputs[0]).dtype != DType::kF32) return false;
    if (node.is("MatMul")) return product(node);
    if (node.is("Mul") || node.is("Div") || node.is("Add")) return elementwise(node);
    return node.is("Reshape") && unfold(node);
  }

 private:
  Result<bool> product(const Node& node) {
    const ValueId a = folded(graph_, node.inputs[0]);
    ValueId b = folded(graph_, node.inputs[1]);
    const Node* found = producer_is(graph_, node.inputs[1], "Transpose");
    const bool turned = found != nullptr && has_perm(*found, {0, 2, 1});
    if (turned) b = folded(graph_, found->inputs[0]);
    if (a == kNoValue || b == kNoValue) return false;
    const Shape x = *shape_of(graph_, a), y = *shape_of(graph_, b);
    if (x[0] != y[0] || x[1] != y[1]) return false;
    if (turned) {
      const Node transpose = *found;
      b = add_op(graph_, transpose, {b}, Shape{y[0], y[1], y[3], y[2]});
      graph_.node(graph_.value(b).producer).attrs.set("perm", std::vector<int64_t>{0, 1, 3, 2});
    }
    const ValueId made = add_op(graph_, node, {a, b}, Shape{x[0], x[1], x[2], turned ? y[2] : y[3]});
    return fold_result(node, made);
  }

  Result<bool> elementwise(const Node& node) {
    for (size_t i = 0; i < 2; ++i) {
      const ValueId x = folded(graph_, node.inputs[i]);
      if (x == kNoValue || !moved_.contains(x)) continue;
      const Shape shape = *shape_of(graph_, x);
      SPRUN_ASSIGN(const ValueId other, unfolded_operand(node, node.inputs[1 - i], shape));
      if (other == kNoValue) return false;
      std::vector<ValueId> inputs = {x, other};
      if (i == 1) std::swap(inputs[0], inputs[1]);
      return fold_result(node, add_op(graph_, node, std::move(inputs), shape));
    }
    return false;
  }

  // The other operand, with four axes if it has three; kNoValue if it makes the result larger.
  Result<ValueId> unfolded_operand(const Node& node, ValueId v, const Shape& shape) {
    const Shape* found = shape_of(graph_, v);
    if (found == nullptr) return kNoValue;
    if (found->num_elements() == 1) return found->rank() <= 3 ? v : kNoValue;
    const Shape from = *found;
    const bool fits = from.rank() == 3 && (from[0] == 1 || from[0] == shape[0] * shape[1]) &&
                      (from[1] == 1 || from[1] == shape[2]) && (from[2] == 1 || from[2] == shape[3]);
    if (!fits) return kNoValue;
    const Shape to = from[0] == 1 ? Shape{1, 1, from[1], from[2]} : Shape{shape[0], shape[1], from[1], from[2]};
    return add_reshape(v, to, node.name + "/operand");
  }

  Result<ValueId> add_reshape(ValueId v, const Shape& to, const std::string& name) {
    SPRUN_ASSIGN(const ValueId sizes, shape_constant(graph_, to, name + "/shape"));
    Node like;
    like.op_type = "Reshape", like.version = 14, like.name = name;
    const ValueId made = add_op(graph_, like, {v, sizes}, to);
    graph_.node(graph_.value(made).producer).attrs.set("allowzero", int64_t{1});
    return made;
  }

  // The node's output becomes a Reshape of `made`.
  Result<bool> fold_result(const Node& node, ValueId made) {
    const ValueId out = node.outputs[0];
    SPRUN_ASSIGN(const ValueId sizes, shape_constant(graph_, *shape_of(graph_, out), node.name + "/folded"));
    const NodeId reshape = take_over(graph_, out, "", "Reshape", 14, {made, sizes});
    graph_.node(reshape).attrs.set("allowzero", int64_t{1});
    moved_.insert(made);
    return true;
  }

  bool unfold(const Node& node) {
    const ValueId x = folded(graph_, node.inputs[0]), out = node.outputs[0];
    if (x == kNoValue || !moved_.contains(x) || graph_.is_output(out)) return false;
    if (!shape_of(graph_, out) || *shape_of(graph_, out) != *shape_of(graph_, x)) return false;
    graph_.replace_uses(out, x);
    return true;
  }

  Graph& graph_;
  std::set<ValueId> moved_;  // results with four axes that this pass has made
};

}  // namespace

Result<int> pass_unfold_heads(Graph& graph, PassContext&) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  Unfolder unfolder(graph);
  int changed = 0;
  for (NodeId n : order) {
    SPRUN_ASSIGN(const bool did, unfolder.visit(n));
    if (did) ++changed;
  }
  return changed;
}

}  // namespace sprun::graph
