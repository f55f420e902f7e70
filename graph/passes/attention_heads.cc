#include "graph/passes/attention_heads.h"

#include "graph/ir/pattern.h"

namespace sprun::graph {

const Shape* shape_of(const Graph& graph, ValueId v) {
  return v != kNoValue && graph.value(v).shape ? &*graph.value(v).shape : nullptr;
}

bool has_perm(const Node& transpose, const std::vector<int64_t>& perm) {
  return transpose.attrs.get_ints("perm") == perm;
}

ValueId skip_scalars(const Graph& graph, ValueId v, double& factor) {
  for (;;) {
    const Node* node = graph.producer(v);
    if (node == nullptr || !node->domain.empty() || node->inputs.size() != 2) return v;
    ValueId rest = kNoValue;
    const auto scalar = [&](ValueId i) { return scalar_constant(graph, i).has_value(); };
    if (node->op_type == "Mul") {
      const ValueId c = pick_input(*node, scalar, &rest);
      if (c == kNoValue) return v;
      factor *= *scalar_constant(graph, c);
    } else if (node->op_type == "Div" && scalar(node->inputs[1])) {
      rest = node->inputs[0];
      factor /= *scalar_constant(graph, node->inputs[1]);
    } else {
      return v;
    }
    v = rest;
  }
}

namespace {

// v [B,H,T,D] that repeats each head of k [B,Hkv,T,D] G times: k, else kNoValue.
ValueId skip_repeated_heads(const Graph& graph, ValueId v) {
  const Node* reshape = producer_is(graph, v, "Reshape");
  const Node* expand = reshape ? producer_is(graph, reshape->inputs[0], "Expand") : nullptr;
  if (expand == nullptr) return kNoValue;
  const Shape *five = shape_of(graph, expand->outputs[0]), *before = shape_of(graph, expand->inputs[0]);
  const Shape* four = shape_of(graph, v);
  if (!five || !before || !four || five->rank() != 5 || before->rank() != 5 || four->rank() != 4) return kNoValue;
  const bool repeats = (*before)[2] == 1 && (*before)[0] == (*five)[0] && (*before)[1] == (*five)[1] &&
                       (*before)[3] == (*five)[3] && (*before)[4] == (*five)[4] &&
                       *four == Shape{(*five)[0], (*five)[1] * (*five)[2], (*five)[3], (*five)[4]};
  const Node* unsqueeze = repeats ? graph.producer(expand->inputs[0]) : nullptr;
  if (unsqueeze == nullptr || !(unsqueeze->is("Unsqueeze") || unsqueeze->is("Reshape"))) return kNoValue;
  const Shape* source = shape_of(graph, unsqueeze->inputs[0]);
  const bool fits = source && *source == Shape{(*five)[0], (*five)[1], (*five)[3], (*five)[4]};
  return fits ? unsqueeze->inputs[0] : kNoValue;
}

// Heads [B,S,H,D] that are columns of a packed [B,S,W], cut out by Split: read from there, without the copy.
void read_packed(const Graph& graph, HeadsOperand& operand) {
  const Node* reshape = producer_is(graph, operand.value, "Reshape");
  const Shape* heads = shape_of(graph, operand.value);
  const Shape* part = reshape ? shape_of(graph, reshape->inputs[0]) : nullptr;
  if (!heads || !part || part->rank() != 3 || *part != Shape{(*heads)[0], (*heads)[1], (*heads)[2] * (*heads)[3]}) return;
  const Node* split = producer_is(graph, reshape->inputs[0], "Split");
  const int64_t axis = split ? split->attrs.get_int("axis", 0) : 0;
  if (split == nullptr || (axis != -1 && axis != 2)) return;
  int64_t offset = 0;
  for (ValueId output : split->outputs) {
    if (output == reshape->inputs[0]) {
      operand.value = split->inputs[0];
      operand.offset = offset;
      return;
    }
    const Shape* size = shape_of(graph, output);
    if (size == nullptr) return;
    offset += (*size)[2];
  }
}

// Passes over scalar factors and a DequantizeLinear: from there on the operand is codes.
ValueId skip_dequantize(const Graph& graph, ValueId v, HeadsOperand& operand) {
  double factor = 1;
  const ValueId inner = skip_scalars(graph, v, factor);
  const Node* node = producer_is(graph, inner, "DequantizeLinear");
  if (node == nullptr || graph.constant(node->inputs[0]) || !(operand.codes = quantize_params(graph, *node))) return v;
  operand.factor *= factor;
  return node->inputs[0];
}

// K [B,H,D,T] turned around from x [B,H,T,D] by way of [B*H,T,D], as torch.export spells it: x, else kNoValue.
ValueId skip_folded_transpose(const Graph& graph, ValueId v) {
  const Node* unfold = producer_is(graph, v, "Reshape");
  const Node* transpose = unfold ? producer_is(graph, unfold->inputs[0], "Transpose") : nullptr;
  const Node* fold = transpose && has_perm(*transpose, {0, 2, 1}) ? producer_is(graph, transpose->inputs[0], "Reshape") : nullptr;
  if (fold == nullptr) return kNoValue;
  const Shape *to = shape_of(graph, v), *from = shape_of(graph, fold->inputs[0]), *three = shape_of(graph, fold->outputs[0]);
  const bool turns = to && from && three && from->rank() == 4 &&
                     *three == Shape{(*from)[0] * (*from)[1], (*from)[2], (*from)[3]} &&
                     *to == Shape{(*from)[0], (*from)[1], (*from)[3], (*from)[2]};
  return turns ? fold->inputs[0] : kNoValue;
}

}  // namespace

HeadsOperand read_heads(const Graph& graph, ValueId v, bool in_codes) {
  HeadsOperand operand;
  if (in_codes) v = skip_dequantize(graph, v, operand);
  v = skip_scalars(graph, v, operand.factor);
  if (const ValueId source = skip_repeated_heads(graph, v); source != kNoValue) v = source;
  v = skip_scalars(graph, v, operand.factor);
  const Shape* shape = shape_of(graph, v);
  operand.heads = shape && shape->rank() == 4 ? (*shape)[1] : 0;
  operand.layout = "bhsd";
  operand.value = v;
  const Node* transpose = producer_is(graph, v, "Transpose");
  if (transpose && has_perm(*transpose, {0, 2, 1, 3})) {
    operand.layout = "bshd";
    operand.value = skip_scalars(graph, transpose->inputs[0], operand.factor);
    read_packed(graph, operand);
  }
  return operand;
}

HeadsOperand read_transposed_heads(const Graph& graph, ValueId v, bool in_codes) {
  HeadsOperand outer;
  if (in_codes) v = skip_dequantize(graph, v, outer);
  v = skip_scalars(graph, v, outer.factor);
  const Node* transpose = producer_is(graph, v, "Transpose");
  ValueId turned = skip_folded_transpose(graph, v);
  if (transpose && has_perm(*transpose, {0, 1, 3, 2})) turned = transpose->inputs[0];
  if (turned != kNoValue) {
    HeadsOperand operand = read_heads(graph, turned, in_codes && !outer.codes);
    operand.factor *= outer.factor;
    if (outer.codes) operand.codes = outer.codes;
    return operand;
  }
  HeadsOperand operand{v, "bhds", 0, outer.factor, 0, outer.codes};
  const Shape* shape = shape_of(graph, v);
  operand.heads = shape && shape->rank() == 4 ? (*shape)[1] : 0;
  if (transpose && has_perm(*transpose, {0, 2, 3, 1})) {
    operand.layout = "bshd";
    operand.value = skip_scalars(graph, transpose->inputs[0], operand.factor);
    read_packed(graph, operand);
  }
  return operand;
}

}  // namespace sprun::graph
