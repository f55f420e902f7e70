// Feed-forward layers with exact zeros become one sprun.SparseFfn:
//   down(act(select(gate(x))) * up(x))   or, without up,   down(act(select(gate(x))))
// select is a rectifier, or what fuse_stat_top_k, fuse_threshold and fuse_top_k made. gate and up may read parts of x
// (Spark), or be parts of one layer's result (fused gate_up). Hidden values that others read, activations that do not map
// 0 to 0, and layers whose weights are computed stay as they are; at the plan stage a note says why.
#include <utility>
#include <vector>

#include "graph/ir/pattern.h"
#include "graph/ops/op.h"
#include "graph/ops/sparse_ffn.h"
#include "graph/passes/activation_name.h"
#include "graph/passes/ffn_gate.h"
#include "graph/passes/linear_layout.h"
#include "graph/passes/pass.h"
#include "graph/passes/select_match.h"

namespace sprun::graph {

namespace {

struct Ffn {
  FfnGateMatch gate;
  std::optional<FfnLayerMatch> up;
  bool up_relu = false, fused_up = false;
  FfnLayerMatch down;
  ValueId x = kNoValue;
  int64_t gate_offset = 0, up_offset = 0;
};

class Matcher {
 public:
  explicit Matcher(const Graph& graph) : graph_(graph) {}

  // down's product is v.
  std::optional<Ffn> match(ValueId v, std::string* why) const {
    const auto down = match_ffn_layer(graph_, v);
    if (!down || down->column != 0 || down->width != down->n || down->activation != "none") return std::nullopt;
    Ffn ffn;
    ffn.down = *down;
    const ValueId h = down->x;
    const ValueId core = skip_casts(graph_, h);
    if (!match_hidden(core, ffn, why)) return std::nullopt;
    if (!graph_.has_one_use(h) || !graph_.has_one_use(core)) return refuse(why, "hidden values have other readers");
    if (ffn.gate.layer.width != down->k) return refuse(why, "the layers differ in width");
    if (down->residual != kNoValue && down->form == "nbits") return std::nullopt;
    if (!match_inputs(ffn)) return refuse(why, "gate and up do not read the same values");
    return ffn;
  }

 private:
  static std::nullopt_t refuse(std::string* why, const std::string& text) {
    *why = text;
    return std::nullopt;
  }

  bool match_hidden(ValueId h, Ffn& ffn, std::string* why) const {
    const Node* node = graph_.producer(h);
    if (node == nullptr) return false;
    if (node->is("Mul") && node->inputs.size() == 2 && node->inputs[0] != node->inputs[1]) {
      return match_product(node->inputs[0], node->inputs[1], ffn, why) ||
             match_product(node->inputs[1], node->inputs[0], ffn, why);
    }
    auto gate = match_ffn_gate(graph_, h, why);
    if (!gate) return false;
    ffn.gate = std::move(*gate);
    return true;
  }

  bool match_product(ValueId a, ValueId b, Ffn& ffn, std::string* why) const {
    auto gate = match_ffn_gate(graph_, a, why);
    if (!gate) return false;
    ffn.gate = std::move(*gate);
    ValueId up = skip_casts(graph_, b);
    const ValueId inner = relu_input(graph_, up);
    ffn.up_relu = inner != kNoValue;
    ffn.up = match_ffn_layer(graph_, ffn.up_relu ? inner : up);
    if (ffn.up && ffn.up->activation == "relu" && !ffn.up_relu) {
      ffn.up_relu = true;
      ffn.up->activation = "none";
    }
    const bool plain = ffn.up && ffn.up->activation == "none" && ffn.up->residual == kNoValue;
    if (!plain) return explain(why, "what the gate is multiplied with is no linear layer's result with constant weights");
    const bool single = graph_.has_one_use(a) && graph_.has_one_use(b) && graph_.has_one_use(up) &&
                        (inner == kNoValue || graph_.has_one_use(inner));
    if (!single) return explain(why, "gate or up values have other readers");
    if (ffn.up->width != ffn.gate.layer.width) return explain(why, "gate and up differ in width");
    return true;
  }
  static bool explain(std::string* why, const std::string& text) {
    if (why->empty()) *why = text;
    return false;
  }

  // Gate and up read one value, each perhaps a part of its columns.
  bool match_inputs(Ffn& ffn) const {
    ffn.x = ffn.gate.layer.x;
    if (!ffn.up) return true;
    const FfnLayerMatch &g = ffn.gate.layer, &u = *ffn.up;
    ffn.fused_up = g.weight == u.weight && g.x == u.x && g.form == u.form && g.width < g.n;
    if (ffn.fused_up) return g.activation == "none" && g.bias == u.bias;
    if (g.width != g.n || u.width != u.n) return false;
    if (g.x == u.x) return true;
    const auto from_gate = column_range(graph_, g.x), from_up = column_range(graph_, u.x);
    const ValueId whole_gate = from_gate ? from_gate->source : g.x, whole_up = from_up ? from_up->source : u.x;
    if (whole_gate != whole_up) return false;
    ffn.x = whole_gate;
    ffn.gate_offset = from_gate ? from_gate->offset : 0;
    ffn.up_offset = from_up ? from_up->offset : 0;
    return true;
  }

  const Graph& graph_;
};

std::string pattern_name(const Ffn& ffn) {
  const std::string& select = ffn.gate.select;
  const bool split = ffn.gate_offset != ffn.up_offset;
  if (select == "stat_top_k") return split ? "Spark FFN (split input, statistical top-k)" : "statistical top-k FFN";
  if (select == "top_k") return "exact top-k FFN";
  if (select == "threshold") {
    const bool absolute = ffn.gate.selector->attrs.get_int("absolute", 0) != 0;
    return absolute ? "thresholded gate FFN (CATS)" : "thresholded ReLU FFN (FATReLU)";
  }
  if (ffn.up_relu) return "dReLU FFN";
  if (ffn.gate.square) return ffn.up ? "squared ReLU GLU FFN" : "squared ReLU FFN";
  return ffn.up ? "ReGLU FFN" : "ReLU FFN";
}

void set_layer(AttrMap& attrs, std::vector<ValueId>& inputs, const std::string& prefix, int input,
               const FfnLayerMatch& layer, int64_t offset, bool weights) {
  attrs.set(prefix + "_form", layer.form);
  attrs.set(prefix + "_trans", int64_t{layer.trans});
  if (!layer.x_quant.empty()) attrs.set(prefix + "_x_quant", layer.x_quant);
  if (!layer.precision.empty()) attrs.set(prefix + "_precision", layer.precision);
  for (auto [name, value] : {std::pair("_n", layer.n), {"_k", layer.k}, {"_bits", layer.bits},
                             {"_block_size", layer.block_size}, {"_offset", offset}, {"_column", layer.column}}) {
    attrs.set(prefix + name, value);
  }
  if (!weights) return;
  const auto at = static_cast<size_t>(input);
  inputs[at] = layer.weight;
  inputs[at + 1] = layer.scale;
  inputs[at + 2] = layer.zero;
  inputs[at + 3] = layer.bias;
}

// Thresholds as float32; the constant itself where it is.
ValueId wide_threshold(Graph& graph, ValueId t) {
  const Tensor& tensor = *graph.constant(t);
  if (tensor.dtype() == DType::kF32) return t;
  auto wide = Tensor::allocate(DType::kF32, tensor.shape());
  if (!wide.ok()) return kNoValue;
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    wide->mutable_view().as<float>()[i] =
        tensor.dtype() == DType::kF16 ? to_float(tensor.as<Float16>()[i]) : to_float(tensor.as<BFloat16>()[i]);
  }
  return graph.add_constant(graph.unique_name(graph.value(t).name + "/f32"), std::move(*wide));
}

bool replace(Graph& graph, ValueId y, const Ffn& ffn) {
  std::vector<ValueId> inputs(FfnInput::kCount, kNoValue);
  inputs[FfnInput::kXGate] = ffn.x;
  if (ffn.up) inputs[FfnInput::kXUp] = ffn.x;
  inputs[FfnInput::kResidual] = ffn.down.residual;
  AttrMap attrs;
  set_layer(attrs, inputs, "gate", FfnInput::kGate, ffn.gate.layer, ffn.gate_offset, true);
  if (ffn.up) set_layer(attrs, inputs, "up", FfnInput::kUp, *ffn.up, ffn.up_offset, !ffn.fused_up);
  set_layer(attrs, inputs, "down", FfnInput::kDown, ffn.down, 0, true);
  if (ffn.gate.select == "threshold") {
    inputs[FfnInput::kThreshold] = wide_threshold(graph, ffn.gate.threshold);
    if (inputs[FfnInput::kThreshold] == kNoValue) return false;
  }
  if (ffn.gate.selector) {
    for (const auto& [name, value] : ffn.gate.selector->attrs.items()) attrs.set(name, value);
  }
  attrs.set("pattern", pattern_name(ffn));
  attrs.set("select", ffn.gate.select);
  attrs.set("d_ff", ffn.gate.layer.width);
  attrs.set("gate_activation", ffn.gate.layer.activation);
  attrs.set("activation", ffn.gate.activation);
  attrs.set("square", int64_t{ffn.gate.square});
  attrs.set("gated", int64_t{ffn.up.has_value()});
  attrs.set("up_relu", int64_t{ffn.up_relu});
  attrs.set("fused_up", int64_t{ffn.fused_up});
  const NodeId made = take_over(graph, y, "sprun", "SparseFfn", 1, std::move(inputs));
  graph.node(made).attrs = std::move(attrs);
  return true;
}

// y + row for the bias of the down layer, else y itself.
ValueId with_bias(const Graph& graph, ValueId y) {
  const NodeId add = only_user(graph, y);
  if (add == kNoNode || !graph.node(add).is("Add")) return y;
  const ValueId sum = graph.node(add).outputs[0];
  const auto layer = match_ffn_layer(graph, sum);
  return layer && layer->bias != kNoValue ? sum : y;
}

bool fuse_at(Graph& graph, NodeId n, PassContext& ctx) {
  const ValueId y = with_bias(graph, graph.node(n).outputs[0]);
  // In a chain of layers with activations the next pair, or none, is the feed-forward layer.
  const NodeId next = only_user(graph, y);
  if (next != kNoNode && !activation_name(graph.node(next)).empty()) return false;
  std::string why;
  const auto ffn = Matcher(graph).match(y, &why);
  if (!ffn) {
    if (!why.empty()) note_miss(ctx, graph.node(n), "fuse_sparse_ffn", "is no sparse feed-forward layer: " + why);
    return false;
  }
  return replace(graph, y, *ffn);
}

// What is added to the result, of its shape, becomes the residual.
bool take_residual(Graph& graph, NodeId n) {
  const Node& node = graph.node(n);
  const ValueId y = node.outputs[0];
  if (node.input(FfnInput::kResidual) != kNoValue || node.attrs.get_string("down_form", "") == "nbits") return false;
  const NodeId add = only_user(graph, y);
  if (add == kNoNode || !graph.node(add).is("Add")) return false;
  const ValueId other = other_input(graph.node(add), y);
  if (other == kNoValue || graph.constant(other)) return false;
  const Value &a = graph.value(y), &b = graph.value(other);
  if (!a.shape || !b.shape || *a.shape != *b.shape || a.dtype != b.dtype) return false;
  graph.set_input(n, FfnInput::kResidual, other);
  graph.move_output(add, 0, n, 0);
  graph.remove_node(add);
  graph.value(y).producer = kNoNode;
  return true;
}

bool may_be_down(const Node& node) {
  return is_linear(node) || node.is("MatMul") || node.is("Gemm") || node.is("com.microsoft", "MatMulNBits");
}

}  // namespace

Result<int> pass_fuse_sparse_ffn(Graph& graph, PassContext& ctx) {
  SPRUN_ASSIGN(const std::vector<NodeId> order, graph.topological_order());
  int fused = 0;
  // Last layer first: of three layers with activations between, the last two are the feed-forward layer.
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    const Node& node = graph.node(*it);
    if (!node.dead && may_be_down(node) && node.outputs.size() == 1 && fuse_at(graph, *it, ctx)) ++fused;
  }
  const int count = graph.num_nodes();
  for (NodeId n = count - 1; n >= 0 && ctx.stage == PassStage::kPlan; --n) {
    if (!graph.node(n).dead && graph.node(n).is("sprun", "SparseFfn") && take_residual(graph, n)) ++fused;
  }
  return fused;
}

}  // namespace sprun::graph
